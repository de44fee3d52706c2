"""The profile `rtx` with its configuration file trains Qwen2.5-1.5B on a card of 8 GB."""

import pytest

from benchmarks.gpu import measure
from contract.errors import UserError
from launcher.configuration import resolve
from tests.gpu import trainings

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
    assert "memory: the GPU ran out of memory" in str(stopped.value)
    assert "Halve batch_size" in str(stopped.value)
