"""A precision that the card does not compute in is refused before the base is loaded."""

from types import SimpleNamespace

import pytest
import torch

from contract.errors import UserError
from contract.recipe import TrainSection
from launcher.configuration import resolve
from tests import bases
from trainer.train.loading import check_device, computing_in, load_base, policy_of


@pytest.fixture
def card(monkeypatch):
    """Puts a card of some compute capability before torch; no kernel runs on it."""

    def answering(major, minor):
        facts = SimpleNamespace(major=major, minor=minor, name="A card")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: facts)
        # Every card can hold such tensors: that is what torch counts as emulation.
        monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)

    return answering


def recipe(profile):
    return resolve(profile).section(TrainSection)


def test_bf16_that_would_be_emulated_is_refused(card):
    card(7, 5)
    with pytest.raises(UserError) as caught:
        check_device(recipe("rtx"))
    assert "A card (compute capability 7.5) does not compute in bf16" in str(caught.value)
    assert "./invoke doctor names the profile" in str(caught.value)


@pytest.mark.parametrize(
    ("capability", "profile"), [((8, 0), "rtx"), ((12, 0), "rtx"), ((7, 5), "t4")]
)
def test_a_precision_that_the_card_computes_in_is_let_through(card, capability, profile):
    card(*capability)
    assert check_device(recipe(profile)) == "A card"


def test_on_a_cpu_bf16_is_what_the_operations_round_to_and_not_the_weights(untrained, tmp_path):
    base = bases.make("smoke", untrained, tmp_path / "base")
    settings = recipe("smoke").model_copy(update={"quantize_base": "none", "precision": "bf16"})
    model = load_base(base, settings)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    ids = torch.tensor([[1, 2, 3, 4]])
    exact = model(input_ids=ids).logits
    with computing_in(policy_of(base, settings)):
        rounded = model(input_ids=ids).logits.float()
    assert not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, atol=0.05)


@pytest.mark.parametrize(("variant", "attention"), [("gemma2", "eager"), ("smoke", "sdpa")])
def test_a_base_is_loaded_with_the_attention_that_it_takes(untrained, tmp_path, variant, attention):
    base = bases.make(variant, untrained, tmp_path / variant)
    settings = recipe("smoke").model_copy(update={"quantize_base": "none"})
    assert load_base(base, settings).config._attn_implementation == attention
