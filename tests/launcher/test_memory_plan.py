"""The plan says what a training takes of the memory before a byte of the base is there."""

import pytest

from contract import paths
from contract.digest import files_below
from contract.machine_memory import memory_bytes
from contract.model_shape import ModelShape
from contract.precision_policy import Card
from contract.published_shapes import published_shape
from contract.run_estimate import disk_parts
from launcher.cli import plan_report
from launcher.configuration import resolve
from launcher.display import Display, terminal
from launcher.pipeline import memory_plan, training
from launcher.pipeline.memory_plan import (
    planned_training,
    with_memory_decided,
)
from launcher.runtime.local_engine import LocalEngine
from tests.launcher.test_training_extent import report

CARDS = ("8 GB", "12 GB", "16 GB", "24 GB")
FITS = {
    "Qwen/Qwen2.5-0.5B-Instruct": (True, True, True, True),
    "Qwen/Qwen2.5-1.5B-Instruct": (True, True, True, True),
    "Qwen/Qwen2.5-3B-Instruct": (True, True, True, True),
    "Qwen/Qwen2.5-7B-Instruct": (True, True, True, True),
    "Qwen/Qwen3-8B": (False, True, True, True),
}


class UnbuiltEngine(LocalEngine):
    """An engine whose image or environment would have to be made first."""

    def is_ready(self, lock, *, exporter=False):
        return False


def shown(capsys, base, *settings, profile="rtx", card=None):
    recipe = resolve(profile, settings=[f"model_to_fine_tune={base}", *settings])
    plan = training.plan(recipe, UnbuiltEngine(), Display(quiet=True))
    plan_report.show(plan, card, terminal())
    return capsys.readouterr().out


@pytest.mark.parametrize(("base", "fits"), FITS.items())
def test_a_published_base_is_estimated_before_it_is_downloaded(capsys, base, fits):
    said = shown(capsys, base, "batch_size=2", "packing=false")
    assert "base        to be downloaded or made" in said
    for part in ("weights: NF4", "adapter: ", "gradients: ", "optimizer: ", "activations: "):
        assert f"B  {part}" in said
    assert " GB  runtime: CUDA" in said
    for card, one in zip(CARDS, fits, strict=True):
        assert (f"in {card}: fits\n" in said) is one
        assert (f"in {card}: does not fit; it would with --set batch_size=1" in said) is not one


def test_a_card_that_is_here_is_the_one_that_counts(capsys):
    small = Card((8, 6), "RTX 3050", 4 << 30)
    said = shown(capsys, "Qwen/Qwen2.5-7B", card=small)
    assert "in RTX 3050's 4.0 GiB: does not fit, whatever is set; Qwen/Qwen2.5-" in said
    assert "in 8 GB" not in said
    large = Card((8, 6), "RTX 3090", 24 << 30)
    assert "in RTX 3090's 24.0 GiB: fits" in shown(capsys, "Qwen/Qwen2.5-7B", card=large)


def test_a_local_base_is_estimated_from_its_own_config(capsys, untrained):
    said = shown(capsys, untrained, profile="smoke")
    adapter = (
        planned_training(resolve("smoke"), ModelShape.read(untrained), "sdpa", None)
        .memory()
        .adapter
    )
    assert f"adapter: {adapter.form}" in said
    gib = memory_bytes() / 2**30
    assert f"in this machine's {gib:.1f} GiB: fits" in said


def test_a_shape_that_is_not_known_costs_one_line_and_nothing_else(capsys):
    said = shown(capsys, "somebody/something")
    line = "memory      not estimated: the shape of somebody/something is not known before"
    assert line in said
    assert "train       to run" in said


def test_the_rows_count_where_they_are_known_and_the_maximum_where_not():
    recipe = resolve("smoke", settings=["max_length=400"])
    shape = ModelShape.of(
        {
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": 100,
        }
    )
    assert planned_training(recipe, shape, None, None).longest_row == 400
    assert planned_training(recipe, shape, None, report(2, [100, 300])).longest_row == 300
    assert planned_training(recipe, shape, None, report(2, [100, 900])).longest_row == 400


def decided(profile, base, *settings):
    recipe = resolve(profile, settings=[f"model_to_fine_tune={base}", *settings])
    return with_memory_decided(recipe, published_shape(base)).gradient_checkpointing


@pytest.mark.parametrize(
    ("base", "gib", "twice"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 8, False),
        ("Qwen/Qwen2.5-3B-Instruct", 8, True),
        ("Qwen/Qwen2.5-3B-Instruct", 24, False),
        ("Qwen/Qwen3-8B", 24, True),
    ],
)
def test_activations_are_kept_where_the_card_has_room(monkeypatch, base, gib, twice):
    card = Card((8, 6), "RTX", gib << 30)
    monkeypatch.setattr(memory_plan, "training_card", lambda *_: card)
    assert decided("rtx", base) is twice
    # What is said is not decided.
    assert decided("rtx", base, f"gradient_checkpointing={not twice}".lower()) is not twice


@pytest.mark.parametrize(
    ("gib", "quantize_base", "twice"),
    [
        (64, "none", False),
        (9, "none", True),
        (6, "nf4", True),
        (2, "nf4", True),
        (None, "nf4", True),
    ],
)
def test_on_a_processor_a_base_is_quantized_where_it_would_not_fit(
    monkeypatch, gib, quantize_base, twice
):
    size_bytes = None if gib is None else gib << 30
    monkeypatch.setattr(memory_plan, "memory_bytes", lambda: size_bytes)
    base = "Qwen/Qwen2.5-0.5B-Instruct"
    recipe = resolve("cpu", settings=[f"model_to_fine_tune={base}", "precision=fp32"])
    found = with_memory_decided(recipe, published_shape(base))
    assert (found.quantize_base, found.gradient_checkpointing) == (quantize_base, twice)


def test_what_is_not_known_is_computed_twice(monkeypatch):
    assert decided("cpu", "somebody/something") is True
    monkeypatch.setattr(memory_plan, "training_card", lambda *_: None)
    assert decided("t4", "Qwen/Qwen2.5-0.5B-Instruct") is True


def test_a_real_run_takes_what_was_said(smoke_run):
    recipe = smoke_run.manifest.recipe
    sizes = {
        part.name: part.size_bytes for part in disk_parts(ModelShape.read(smoke_run.base), recipe)
    }
    adapter = smoke_run.folder / paths.ADAPTER / "adapter_model.safetensors"
    assert sizes["adapter"] == pytest.approx(adapter.stat().st_size, rel=0.05)
    merged = sum(
        file.stat().st_size
        for file in files_below(smoke_run.folder / paths.MERGED)
        if file.suffix == ".safetensors"
    )
    assert sizes["merged"] == pytest.approx(merged, rel=0.02)
    f16 = next((smoke_run.folder / paths.GGUF).glob("*f16.gguf"))
    # With 2,048 tokens' texts, which are little beside a real base.
    assert sizes["f16"] == pytest.approx(f16.stat().st_size, rel=0.1)
