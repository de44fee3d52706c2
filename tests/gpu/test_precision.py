"""What a profile trains with on a card: the base's precision, the adapter's, the optimizer.

The profile `t4` runs on newer cards as well: fp16 compute and a gradient scaler.
"""

import io

import pytest
import torch
from trl import SFTTrainer

from contract.paths import StagePaths
from launcher.configuration import resolve
from tests import stage_runs
from tests.gpu import trainings
from trainer.entrypoint import Reporter
from trainer.train.stage import train

STEPS = 4


@pytest.fixture(scope="module")
def trainer(request, four_layers, tmp_path_factory):
    """transformers' trainer, as the stage `train` left it after a few steps."""
    run = tmp_path_factory.mktemp("precision") / "run"
    found = []
    own = SFTTrainer.train

    def train_and_keep(self, *arguments, **named):
        found.append(self)
        return own(self, *arguments, **named)

    recipe = resolve(request.param, settings=["epochs=1"])
    rows = STEPS * recipe.batch_size * recipe.gradient_accumulation_steps
    trainings.write_rows(stage_runs.begin_run(run, recipe), [100] * rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SFTTrainer, "train", train_and_keep)
        train(StagePaths(run=run, base=four_layers), Reporter(io.StringIO()))
    [trainer] = found
    assert trainer.state.global_step == STEPS
    return trainer


@pytest.mark.parametrize(
    ("trainer", "computing", "scaled"),
    [("rtx", torch.bfloat16, False), ("t4", torch.float16, True)],
    indirect=["trainer"],
    ids=["rtx", "t4"],
)
def test_the_base_is_nf4_and_the_adapter_fp32(trainer, computing, scaled, figure):
    from bitsandbytes.nn import Linear4bit

    layers = [module for module in trainer.model.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 4 * 7
    for layer in layers:
        assert layer.compute_dtype == computing
        assert layer.weight.quant_state.quant_type == "nf4"
        assert layer.weight.quant_state.nested
    assert trainer.model.get_input_embeddings().weight.dtype == computing
    adapter = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    assert len(adapter) == 2 * len(layers)
    assert {weight.dtype for weight in adapter} == {torch.float32}
    scaler = trainer.accelerator.scaler
    assert bool(scaler and scaler.is_enabled()) == scaled
    if scaled:
        figure("gradient scale after 4 steps", scaler.get_scale(), "")
        assert scaler.get_scale() >= 1


@pytest.mark.parametrize("trainer", ["rtx", "t4"], indirect=True)
def test_the_optimizer_is_paged_and_of_8_bits(trainer):
    from bitsandbytes.optim import AdamW

    optimizer = trainer.optimizer.optimizer
    assert isinstance(optimizer, AdamW)
    assert optimizer.is_paged
    states = [state for state in optimizer.state.values() if state]
    # A's rows of 8,960 by 16 are more than 4,096 elements, below which it takes 32 bits.
    assert any(state["state1"].dtype == torch.uint8 for state in states)
    assert any(getattr(state["state1"], "is_paged", False) for state in states)
