"""The geometry of a report's pictures: pure, without a word and without a colour.

A picture is stretched to the width that it gets, so that its labels, which are text beside it,
keep their size on a phone: coordinates are in a square of `SIDE` units, y downwards, and places of
labels in percent of the picture's width or height.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from launcher.evaluate.intervals import Interval

SIDE = 1000.0
# Two to a pixel or so, on a screen; more are not seen.
MOST_POINTS = 800
_MOST_TICKS = 5
_MOST_BINS = 40
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
# Farther away than any figure of a training; beyond it differences overflow.
_MOST = 1e100
# From these on, labels share a power of ten.
_SMALL, _LARGE = 1e-2, 1e6

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points in the order of x, joined by a line; `dotted` marks each of them as well."""

    name: str
    points: Sequence[Point]
    dotted: bool = False


@dataclass(frozen=True)
class Tick:
    """A value on an axis, and its place in percent from the left or from the top."""

    value: float
    percent: float


@dataclass(frozen=True)
class Axis:
    """The values that are labelled, as multiples of a power of ten; `digits` behind the point."""

    ticks: tuple[Tick, ...]
    exponent: int
    digits: int

    def label(self, tick: Tick) -> float:
        """What is written at a tick: `2` at 0.0002, where the exponent is -4."""
        return tick.value / 10.0**self.exponent


@dataclass(frozen=True)
class Curve:
    """A series as data of SVG paths: its line, and its dots as lines without length."""

    name: str
    line: str
    dots: str


@dataclass(frozen=True)
class LineChart:
    """Curves in one frame."""

    curves: tuple[Curve, ...]
    x: Axis
    y: Axis


@dataclass(frozen=True)
class Bin:
    """How many rows have a length from `start` to `end`, and the bar that says it."""

    start: int
    end: int
    count: int
    truncated: bool
    left: float
    width: float
    top: float
    height: float


@dataclass(frozen=True)
class Histogram:
    """Rows by length; `limit` is the place of the longest that is not cut, where it is in sight."""

    bins: tuple[Bin, ...]
    x: Axis
    y: Axis
    limit: float | None


@dataclass(frozen=True)
class Whisker:
    """An interval and its mean, in units of the picture's width."""

    low: float
    mean: float
    high: float


def line_chart(series: Iterable[Series], *, from_zero: bool = False) -> LineChart | None:
    """Curves in one frame whose x begins at 0; None where there is nothing to draw.

    Values that are no finite numbers are left out, and long series are thinned.

    Args:
        from_zero: the y axis has 0 on it, however far away the values are.
    """
    drawn = [
        (one, points)
        for one in series
        if (points := [point for point in one.points if _drawable(point)])
    ]
    if not drawn:
        return None
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    right = max(*xs, 1.0)
    if from_zero:
        ys.append(0.0)
    y_values = tick_values(*_bounds(min(ys), max(ys)))
    x = _axis([value for value in tick_values(0.0, right) if value <= right], 0.0, right)
    y = _axis(y_values, y_values[-1], y_values[0])

    def placed(point: Point) -> Point:
        down = (y_values[-1] - point[1]) / (y_values[-1] - y_values[0])
        return SIDE * point[0] / right, SIDE * down

    return LineChart(
        tuple(_curve(one, [placed(point) for point in thinned(points)]) for one, points in drawn),
        x,
        y,
    )


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most so many of the points: of each stretch the lowest and the highest, first and last."""
    if len(points) <= most:
        return list(points)
    inner = points[1:-1]
    stretches = max(1, (most - 2) // 2)
    kept = [points[0]]
    for number in range(stretches):
        start, end = (len(inner) * at // stretches for at in (number, number + 1))
        if stretch := range(start, end):
            lowest = min(stretch, key=lambda at: inner[at][1])
            highest = max(stretch, key=lambda at: inner[at][1])
            kept += [inner[at] for at in sorted({lowest, highest})]
    return [*kept, points[-1]]


def tick_values(low: float, high: float, most: int = _MOST_TICKS) -> list[float]:
    """Round values at equal distances, from the last one below `low` to the first above `high`."""
    raw = (high - low) / most
    exponent = math.floor(math.log10(raw))
    step = next(
        nice * 10.0**exponent for nice in _NICE if nice * 10.0**exponent >= raw * (1 - 1e-9)
    )
    # The slack keeps a bound that is a multiple itself from being passed by a rounding error.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


def histogram(lengths: Sequence[int], max_length: int) -> Histogram | None:
    """Rows by token length, in bins of a round width; None where there are no rows."""
    if not lengths:
        return None
    low, high = min(lengths), max(lengths)
    width = _bin_width(high - low + 1)
    first = low // width * width
    counts = [0] * ((high - first) // width + 1)
    for length in lengths:
        counts[(length - first) // width] += 1
    span = width * len(counts)
    y_values = [value for value in tick_values(0.0, max(counts)) if value == int(value)]
    top = max(y_values[-1], max(counts))
    bins = tuple(
        Bin(
            start=first + number * width,
            end=first + (number + 1) * width - 1,
            count=count,
            truncated=count > 0 and first + (number + 1) * width - 1 > max_length,
            left=SIDE * number / len(counts),
            width=SIDE / len(counts),
            top=SIDE * (1 - count / top),
            height=SIDE * count / top,
        )
        for number, count in enumerate(counts)
    )
    x_values = [
        value
        for value in tick_values(first, first + span)
        if first <= value <= first + span and value == int(value)
    ]
    limit = 100 * (max_length + 1 - first) / span
    return Histogram(
        bins,
        _axis(x_values, first, first + span),
        _axis(y_values, top, 0.0),
        limit if 0 <= limit <= 100 else None,
    )


def whisker(interval: Interval) -> Whisker:
    """An interval of shares on an axis from 0 to 1."""
    low, mean, high = (
        SIDE * min(max(value, 0.0), 1.0) for value in (interval.low, interval.mean, interval.high)
    )
    return Whisker(low, mean, high)


def _drawable(point: Point) -> bool:
    return all(math.isfinite(value) and abs(value) < _MOST for value in point)


def _bounds(low: float, high: float) -> tuple[float, float]:
    """What the axis has to hold: from 0, where that costs little height."""
    if low == high:
        return (min(low, 0.0), max(high, 0.0)) if low else (0.0, 1.0)
    return (0.0, high) if 0 <= low <= high / 2 else (low, high)


def _axis(values: Sequence[float], start: float, end: float) -> Axis:
    largest = max((abs(value) for value in values), default=0.0)
    exponent = 0
    if largest and not _SMALL <= largest < _LARGE:
        exponent = math.floor(math.log10(largest))
    written = [value / 10.0**exponent for value in values]
    digits = next(
        (n for n in range(7) if all(abs(round(one, n) - one) < 1e-9 for one in written)), 6
    )
    span = (end - start) or 1.0
    return Axis(
        tuple(Tick(value, 100 * (value - start) / span) for value in values), exponent, digits
    )


def _curve(series: Series, points: Sequence[Point]) -> Curve:
    places = [f"{x:.1f} {y:.1f}" for x, y in points]
    # A single point has no line, and would not be seen.
    dots = "".join(f"M{place}h0" for place in places) if series.dotted or len(places) == 1 else ""
    return Curve(series.name, f"M{'L'.join(places)}" if len(places) > 1 else "", dots)


def _bin_width(span: int) -> int:
    """The least of 1, 2, 5, 10, 20, 50 ... that needs few enough bins."""
    width = 1
    while True:
        for nice in (1, 2, 5):
            # One more, where the first does not begin at a multiple.
            if span <= (_MOST_BINS - 1) * nice * width:
                return nice * width
        width *= 10
