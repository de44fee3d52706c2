"""What is said of a run's disk and of the work around the training is what the stages ask for."""

from contract.memory_estimate import adapter_parameters
from contract.published_shapes import published_shape
from contract.recipe import TrainSection
from contract.run_estimate import _SCORED_ROWS, disk_parts, stage_memory
from launcher.configuration import resolve

QWEN = published_shape("Qwen/Qwen2.5-1.5B")


def test_a_runs_disk_is_that_of_its_files():
    recipe = resolve("rtx", settings=["quantizations=[q4_k_m, q8_0]", "checkpoints_kept=3"])
    sizes = {part.name: part.size_bytes for part in disk_parts(QWEN, recipe)}
    parameters = QWEN.parameters().total
    adapter = 4 * adapter_parameters(QWEN, recipe.section(TrainSection))
    assert sizes["base"] == sizes["merged"] == 2 * parameters
    assert sizes["adapter"] == adapter
    # The adapter, the best one so far, and two states of AdamW of a byte each, with their scales.
    assert 3 * 2.5 * adapter < sizes["checkpoints"] < 3 * 2.52 * adapter
    # f16 is always there: the others are made from it.
    assert sizes["f16"] == 2 * parameters
    assert sizes["q4_k_m"] < sizes["q8_0"] < sizes["f16"]


def test_a_base_beside_its_adapter_is_two_files_more():
    merged, beside = (
        list(disk_parts(QWEN, resolve("rtx", settings=[setting])))
        for setting in ("serving=merged", "serving=adapter")
    )
    assert len(beside) == len(merged) + 2


def test_the_largest_weight_decides_what_later_stages_take():
    recipe = resolve("rtx")
    sizes = {part.name: part.size_bytes for part in stage_memory(QWEN, recipe)}
    embedding = 151_936 * 1536
    assert sizes["quantize"] == 8 * embedding + (300 << 20)
    assert sizes["merge"] == 12 * 8960 * 1536 + (640 << 20)
    assert sizes["reference"] == 4 * embedding + 12 * 151_936 * 512 + (860 << 20)
    assert sizes["reference"] == sizes["convert"]


def test_longer_rows_take_more_to_score():
    short, long = (
        next(stage_memory(QWEN, resolve("rtx", settings=[f"max_length={length}"])))
        for length in (512, 1024)
    )
    assert short.name == "scoring"
    assert long.size_bytes - short.size_bytes == 4 * 3 * _SCORED_ROWS * 512 * 8960
