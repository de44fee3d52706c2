"""The losses of a training as a small chart of characters, for any terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

_HEIGHT = 8
_LEAST_WIDTH, _MOST_WIDTH = 10, 60
_LABEL_WIDTH = 9


@dataclass(frozen=True)
class Curve:
    """Steps and losses, drawn with one character; where curves meet, the later one is seen."""

    name: str
    points: Sequence[tuple[int, float]]
    mark: str
    plain_mark: str
    style: str


def loss_chart(curves: Sequence[Curve], *, width: int, plain: bool) -> list[Text]:
    """Lines of at most `width` columns: the chart, its axes and what its marks are.

    Losses that are no finite numbers are left out.

    Args:
        curves: with at least one finite loss among them.
        width: that of the terminal; below 22 columns the lines are longer.
        plain: draw with ASCII alone.
    """
    columns = max(_LEAST_WIDTH, min(_MOST_WIDTH, width - _LABEL_WIDTH - 3))
    last = max(step for curve in curves for step, _ in curve.points)
    drawn = [(curve, _columns(curve.points, last, columns)) for curve in curves]
    means = [loss for _, losses in drawn for loss in losses.values()]
    low, high = min(means), max(means)
    cells: dict[tuple[int, int], Curve] = {}
    for curve, losses in drawn:
        for column, loss in losses.items():
            height = (loss - low) / (high - low) if high > low else 0.0
            cells[round((1 - height) * (_HEIGHT - 1)), column] = curve

    vertical, corner, horizontal = ("|", "+", "-") if plain else ("│", "└", "─")
    lines = []
    for row in range(_HEIGHT):
        label = {0: f"{high:.3g}", _HEIGHT - 1: f"{low:.3g}"}.get(row, "")
        line = Text(f"{label:>{_LABEL_WIDTH}} {vertical}")
        for column in range(columns):
            here = cells.get((row, column))
            line.append(_mark(here, plain) if here else " ", here.style if here else "")
        line.rstrip()
        lines.append(line)
    lines.append(Text(f"{'':{_LABEL_WIDTH}} {corner}{horizontal * columns}"))
    lines.append(Text(f"{'':{_LABEL_WIDTH}}  0{f'step {last}':>{columns - 1}}"))
    indent = " " * (_LABEL_WIDTH + 2)
    marks = [
        Text.assemble((_mark(curve, plain), curve.style), f" {curve.name}") for curve in curves
    ]
    beside = Text(indent) + Text("   ").join(marks)
    return [
        *lines,
        *([beside] if len(beside) <= width else [Text(indent) + mark for mark in marks]),
    ]


def _columns(points: Sequence[tuple[int, float]], last: int, columns: int) -> dict[int, float]:
    """The mean of the losses in each column."""
    found: dict[int, list[float]] = {}
    for step, loss in points:
        if math.isfinite(loss):
            found.setdefault(round(step / max(last, 1) * (columns - 1)), []).append(loss)
    return {column: sum(losses) / len(losses) for column, losses in found.items()}


def _mark(curve: Curve, plain: bool) -> str:
    return curve.plain_mark if plain else curve.mark
