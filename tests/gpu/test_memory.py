"""The profile `rtx` with its configuration file trains Qwen2.5-1.5B on a card of 8 GB."""

import io
import json

import pytest
import torch

from benchmarks.gpu import measure
from contract.errors import UserError
from contract.paths import StagePaths
from contract.results.train import TrainResult
from launcher.configuration import resolve
from tests import stage_runs
from tests.gpu import trainings
from trainer.entrypoint import Reporter
from trainer.train.stage import train

CARD_BYTES = 8 * 10**9
STEPS = 2


def test_a_base_of_the_size_of_qwen_1_5b_trains_in_8_gb(qwen_shaped, tmp_path, figure):
    recipe = resolve("rtx", settings=["epochs=1", "logging_steps=1"])
    assert (recipe.quantize_base, recipe.precision) == ("nf4", "bf16")
    rows = STEPS * recipe.batch_size * recipe.gradient_accumulation_steps
    # The worst that can come: every row is as long as one may be.
    trainings.write_rows(stage_runs.begin_run(tmp_path / "run", recipe), [recipe.max_length] * rows)
    measured = measure(
        tmp_path / "run",
        qwen_shaped,
        warm_up=1,
        steps=STEPS - 1,
        timeout_s=180,
        limit_bytes=CARD_BYTES,
    )
    figure("peak allocated", measured.peak_allocated_bytes / 1e9, "GB")
    figure("peak reserved", measured.peak_reserved_bytes / 1e9, "GB")
    figure("the driver counts", measured.device_used_bytes / 1e9, "GB")
    assert len(measured.losses) == STEPS
    assert 0 < measured.peak_allocated_bytes <= measured.peak_reserved_bytes <= CARD_BYTES
    # The run went to its end: predictions and adapter as well.
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()


def test_less_memory_than_it_needs_is_said_in_a_sentence(qwen_shaped, tmp_path):
    recipe = resolve("rtx", settings=["epochs=1", "logging_steps=1"])
    trainings.write_rows(stage_runs.begin_run(tmp_path / "run", recipe), [recipe.max_length] * 16)
    with pytest.raises(UserError) as stopped:
        # Room for the weights, and not for a step.
        measure(
            tmp_path / "run",
            qwen_shaped,
            warm_up=1,
            steps=0,
            timeout_s=120,
            limit_bytes=14 * 10**8,
        )
    assert "memory: the GPU ran out of it, one row at a time" in str(stopped.value)
    assert "Lower max_length" in str(stopped.value)


@pytest.fixture(params=[8, 15], ids=["8 GB", "15 GB"])
def small_card(request):
    """A card of this size, as far as this process may use it: a consumer RTX's, and a T4's."""
    torch.cuda.empty_cache()
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(request.param * 10**9 / total_bytes)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize(
    ("settings", "smaller"),
    [(["packing=false"], "batch_size"), (["packing_length=131072"], "packing_length")],
    ids=["padded", "packed"],
)
def test_what_does_not_fit_is_divided(settings, smaller, qwen_shaped, tmp_path, small_card, figure):
    """128 rows of 1,024 tokens, an update: real memory runs out, and as many rows are learned."""
    batch = ["batch_size=128", "gradient_accumulation_steps=1"]
    recipe = resolve("rtx", settings=["epochs=1", "logging_steps=1", *batch, *settings])
    run = stage_runs.begin_run(tmp_path / "run", recipe)
    trainings.write_rows(run, [recipe.max_length] * 128 * STEPS)
    events = io.StringIO()
    train(StagePaths(run=run, base=qwen_shaped), Reporter(events))
    said = [json.loads(line) for line in events.getvalue().splitlines()]
    result = TrainResult.model_validate(said[-1]["values"])
    assert result.steps == result.planned_steps == STEPS
    if smaller == "batch_size":
        rows = result.changed["batch_size"] * result.changed["gradient_accumulation_steps"]
        assert rows == 128
    assert result.changed[smaller] < getattr(recipe, smaller)
    assert any(one["event"] == "note" and "out of memory" in one["text"] for one in said)
    figure(smaller, result.changed[smaller], "")


def test_estimate_probe_and_peak_agree(qwen_shaped, tmp_path, figure):
    recipe = resolve("rtx", settings=["epochs=1", "logging_steps=1"])
    run = stage_runs.begin_run(tmp_path / "run", recipe)
    rows = STEPS * recipe.batch_size * recipe.gradient_accumulation_steps
    trainings.write_rows(run, [recipe.max_length] * rows)
    # In a process of its own: what another test left on the card is no part of the peak.
    memory = trainings.train(run, qwen_shaped).result.memory
    figure("estimate", memory.estimate_bytes / 1e9, "GB")
    figure("probe", memory.probe_bytes / 1e9, "GB")
    figure("peak", memory.peak_bytes / 1e9, "GB")
    assert memory.estimate_bytes == pytest.approx(memory.peak_bytes, rel=0.25)
    assert memory.probe_bytes == pytest.approx(memory.peak_bytes, rel=0.1)
