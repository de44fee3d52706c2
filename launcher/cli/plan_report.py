"""`./invoke plan`: what a run would do, how the training computes, its length and its memory."""

from __future__ import annotations

import shutil

from rich.console import Console

from contract.machine_memory import memory_bytes
from contract.memory_fit import CARDS_GIB, PlannedTraining, fitting_base, smallest_change
from contract.model_shape import ModelShape
from contract.precision_policy import Card, decisions, precision_policy
from contract.recipe import Recipe, TrainSection
from contract.run_estimate import disk_parts, stage_memory
from launcher.display import duration
from launcher.pipeline.training import Plan
from launcher.project import ROOT

_COLUMN = 11


def show(planned: Plan, card: Card | None, console: Console) -> None:
    """Print each stage's state, the precision policy's lines, and the training's extent and memory.

    Args:
        card: that trains; None on a CPU, and where none is there to be asked.

    Raises:
        UserError: the card does not compute as the recipe says.
    """
    section = planned.recipe.section(TrainSection)
    policy = precision_policy(section, card, planned.attention or "sdpa")
    for stage, state in planned.stages:
        _line(console, stage, state)
    console.print()
    for what, how, why in decisions(section, policy, card):
        # Not yet known is not said.
        if what != "attention" or planned.attention is not None:
            _line(console, what, f"{how}: {why}")
    if planned.extent is not None:
        _line(console, "training", _extent(planned))
    if planned.memory is None:
        _line(console, "memory", f"not estimated: {_no_shape(planned.recipe)}")
        return
    _show_memory(console, planned.memory, card)
    shape = planned.memory.shape
    others = ", ".join(
        f"{part.name} {_gb(part.size_bytes)}" for part in stage_memory(shape, planned.recipe)
    )
    _line(console, "other work", others)
    _line(console, "disk", _disk(planned.recipe, shape))


def _disk(recipe: Recipe, shape: ModelShape) -> str:
    sizes = list(disk_parts(shape, recipe))
    parts = ", ".join(f"{part.name} {_gb(part.size_bytes)}" for part in sizes)
    free = shutil.disk_usage(ROOT).free
    return f"{_gb(sum(part.size_bytes for part in sizes))}: {parts}; {_gb(free)} are free"


def _show_memory(console: Console, training: PlannedTraining, card: Card | None) -> None:
    memory = training.memory()
    said = f"{_gb(memory.total_bytes)} at the training's peak, as estimated:"
    _line(console, "memory", said)
    for part in memory.parts():
        _line(console, "", f"{_gb(part.size_bytes):>8}  {part.name}: {part.form}")
    if training.section.device == "cpu":
        size_bytes, whose = memory_bytes(), "this machine's"
    else:
        size_bytes, whose = (card.memory_bytes, f"{card.name}'s") if card else (None, "")
    if size_bytes is not None:
        _line(console, "", f"in {whose} {_gib(size_bytes)}: {_fit(training, size_bytes)}")
    elif training.section.device == "cuda":
        for size_gib in CARDS_GIB:
            _line(console, "", f"in {size_gib} GB: {_fit(training, size_gib << 30)}")


def _fit(training: PlannedTraining, device_bytes: int) -> str:
    """Whether it fits, and what to do where it does not."""
    if training.fits(device_bytes):
        return "fits"
    if (changed := smallest_change(training, device_bytes)) is not None:
        flags = " ".join(f"--set {key}={_value(value)}" for key, value in changed.items())
        return f"does not fit; it would with {flags}"
    if (base := fitting_base(training, device_bytes)) is not None:
        return f"does not fit, whatever is set; {base} would"
    return "does not fit, whatever is set"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _no_shape(recipe: Recipe) -> str:
    return f"the shape of {recipe.model_to_fine_tune} is not known before it is there"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:.0f} MB"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"


def _extent(planned: Plan) -> str:
    extent, rate = planned.extent, planned.tokens_per_s
    assert extent is not None
    said = f"{extent.steps:,} steps of about {extent.tokens / extent.steps:,.0f} tokens"
    said += f", {extent.tokens:,} tokens"
    if rate is None:
        return said
    took = duration(extent.tokens / rate)
    return f"{said}: about {took} at the last training's {rate:,.0f} tokens/s"


def _line(console: Console, what: str, said: str) -> None:
    console.print(f"{what:<{_COLUMN}} {said}", soft_wrap=True, markup=False, highlight=False)
