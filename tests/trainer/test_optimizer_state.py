"""An optimizer of 8 bits goes on with the moments of one of 32, as a checkpoint has them."""

import io

import pytest
import torch
from bitsandbytes.optim import AdamW

from trainer.train.optimizer_state import take_over_moments

SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.999), "weight_decay": 0.01}


class Fit:
    """A regression with a large matrix, which is quantized, and a small vector, which is not."""

    def __init__(self):
        draw = torch.Generator().manual_seed(1)
        self.matrix = torch.nn.Parameter(torch.randn(96, 64, generator=draw) / 8)
        self.bias = torch.nn.Parameter(torch.zeros(96))
        self.inputs = torch.randn(512, 64, generator=draw)
        self.targets = self.inputs @ torch.randn(64, 96, generator=draw)

    @property
    def parameters(self):
        return [self.matrix, self.bias]

    def train(self, optimizer, steps):
        losses = []
        for _ in range(steps):
            loss = (self.inputs @ self.matrix.T + self.bias - self.targets).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return losses


def saved(state):
    """The state as it comes back from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def after_change(bits, *, moments):
    """The losses of 20 steps behind 30 of torch's Adam, by bitsandbytes'."""
    fit = Fit()
    first = torch.optim.AdamW(fit.parameters, **SETTINGS)
    fit.train(first, 30)
    second = AdamW(fit.parameters, **SETTINGS, optim_bits=bits)
    if moments:
        second.load_state_dict(saved(first.state_dict()))
        take_over_moments(second)
        assert {state["step"] for state in second.state.values()} == {30}
    losses = fit.train(second, 20)
    kinds = [second.state[parameter]["state1"].dtype for parameter in fit.parameters]
    assert kinds == [torch.uint8 if bits == 8 else torch.float32, torch.float32]
    return losses


@pytest.fixture(scope="module")
def undisturbed():
    fit = Fit()
    return fit.train(torch.optim.AdamW(fit.parameters, **SETTINGS), 50)[30:]


@pytest.mark.parametrize(("bits", "within"), [(32, 1e-4), (8, 1e-2)])
def test_the_moments_are_taken_over(undisturbed, bits, within):
    assert after_change(bits, moments=True) == pytest.approx(undisturbed, rel=within)


def test_without_them_it_would_learn_otherwise(undisturbed):
    assert after_change(8, moments=False) != pytest.approx(undisturbed, rel=1e-2)


def test_an_optimizer_that_has_its_own_is_left_as_it_is():
    for optimizer_of in (torch.optim.AdamW, AdamW):
        fit = Fit()
        optimizer = optimizer_of(fit.parameters, **SETTINGS)
        take_over_moments(optimizer)
        assert not optimizer.state
        fit.train(optimizer, 2)
        before = {key: dict(value) for key, value in optimizer.state.items()}
        take_over_moments(optimizer)
        assert before.keys() == optimizer.state.keys()
        for parameter, state in before.items():
            assert all(optimizer.state[parameter][key] is value for key, value in state.items())
