"""What is said of a run's size before it begins is about what it takes."""

import pytest

from contract import paths
from contract.digest import files_below
from contract.model_shape import ModelShape
from contract.published_shapes import published_shape
from contract.run_size import run_sizes
from launcher.configuration import resolve


def test_every_file_that_the_recipe_asks_for_is_counted():
    recipe = resolve("rtx", settings=["quantizations=[q4_k_m, q8_0]", "checkpoints_kept=3"])
    sizes = dict(run_sizes(recipe, published_shape("Qwen/Qwen2.5-1.5B-Instruct")))
    assert list(sizes) == [
        *("merged model", "f16", "q8_0", "q4_k_m", "adapter", "checkpoints while it trains"),
    ]
    assert sizes["merged model"] == sizes["f16"] == pytest.approx(3.09e9, rel=0.01)
    assert sizes["q4_k_m"] < sizes["q8_0"] < sizes["f16"]
    assert sizes["checkpoints while it trains"] > 3 * 2 * sizes["adapter"]


def test_a_base_beside_its_adapter_is_a_file_more():
    merged, beside = (
        [name for name, _ in run_sizes(resolve("rtx", settings=[setting]), SHAPE)]
        for setting in ("serving=merged", "serving=adapter")
    )
    assert len(beside) == len(merged) + 2


SHAPE = published_shape("Qwen/Qwen2.5-0.5B-Instruct")


def test_a_real_run_takes_what_was_said(smoke_run):
    recipe = smoke_run.manifest.recipe
    sizes = dict(run_sizes(recipe, ModelShape.read(smoke_run.base)))
    adapter = smoke_run.folder / paths.ADAPTER / "adapter_model.safetensors"
    assert sizes["adapter"] == pytest.approx(adapter.stat().st_size, rel=0.05)
    merged = sum(
        file.stat().st_size
        for file in files_below(smoke_run.folder / paths.MERGED)
        if file.suffix == ".safetensors"
    )
    # The smoke base is in fp32.
    assert 2 * sizes["merged model"] == pytest.approx(merged, rel=0.02)
    f16 = next((smoke_run.folder / paths.GGUF).glob("*f16.gguf"))
    # With 2,048 tokens' texts, which are little beside a real base.
    assert sizes["f16"] == pytest.approx(f16.stat().st_size, rel=0.1)
