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
    trainings.write_rows(trainings.begin_run(tmp_path / "run", recipe), [recipe.max_length] * rows)
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
    trainings.write_rows(trainings.begin_run(tmp_path / "run", recipe), [recipe.max_length] * 16)
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


@pytest.fixture
def small_card():
    """A card of 8 GB, as far as this process may use it."""
    torch.cuda.empty_cache()
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(CARD_BYTES / total_bytes)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_batch_that_does_not_fit_is_divided(qwen_shaped, tmp_path, small_card, figure):
    """64 rows of 1,024 tokens, an update: real memory runs out, and as many rows are learned."""
    settings = ["epochs=1", "logging_steps=1", "batch_size=64", "gradient_accumulation_steps=1"]
    recipe = resolve("rtx", settings=settings)
    run = trainings.begin_run(tmp_path / "run", recipe)
    trainings.write_rows(run, [recipe.max_length] * 64 * STEPS)
    events = io.StringIO()
    train(StagePaths(run=run, base=qwen_shaped), Reporter(events))
    said = [json.loads(line) for line in events.getvalue().splitlines()]
    result = TrainResult.model_validate(said[-1]["values"])
    assert result.steps == result.planned_steps == STEPS
    rows = result.changed["batch_size"]
    assert rows * result.changed["gradient_accumulation_steps"] == 64
    assert any(one["event"] == "note" and "out of memory" in one["text"] for one in said)
    figure("rows at a time", rows, "rows")
