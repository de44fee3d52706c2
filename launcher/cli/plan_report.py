"""`./invoke plan`: what a run would do, how the training computes, and how long it is."""

from __future__ import annotations

from rich.console import Console

from contract.precision_policy import Card, decisions, precision_policy
from contract.recipe import Recipe, TrainSection
from launcher.display import duration
from launcher.pipeline.training import Plan

_COLUMN = 11


def show(planned: Plan, recipe: Recipe, card: Card | None, console: Console) -> None:
    """Print each stage's state, then the lines of the precision policy and the training's extent.

    Args:
        card: that trains; None on a CPU, and where none is there to be asked.

    Raises:
        UserError: the card does not compute as the recipe says.
    """
    section = recipe.section(TrainSection)
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


def _extent(planned: Plan) -> str:
    extent, rate = planned.extent, planned.tokens_per_s
    assert extent is not None
    said = f"{extent.steps:,} steps, {extent.tokens:,} tokens"
    if rate is None:
        return said
    took = duration(extent.tokens / rate)
    return f"{said}: about {took} at the last training's {rate:,.0f} tokens/s"


def _line(console: Console, what: str, said: str) -> None:
    console.print(f"{what:<{_COLUMN}} {said}", soft_wrap=True, markup=False, highlight=False)
