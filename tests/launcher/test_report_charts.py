"""A report's pictures hold for any figures, and its marks for any words."""

import math
import random
import re

import pytest

from launcher.evaluate.intervals import Interval
from launcher.report.charts import (
    MOST_POINTS,
    SIDE,
    Series,
    histogram,
    line_chart,
    thinned,
    tick_values,
    whisker,
)
from launcher.report.differences import mark_differences


def coordinates(path):
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


def chart(*points, **more):
    return line_chart([Series("loss", points)], **more)


def test_a_single_point_is_a_dot():
    drawn = chart((5.0, 0.4))
    (curve,) = drawn.curves
    assert curve.line == ""
    ((x, y),) = coordinates(curve.dots)
    assert (x, y) == (SIDE, 0.0)
    assert drawn.y.ticks[0].value == 0.0


@pytest.mark.parametrize("value", [0.0, 1e-12, 3e-7, 0.5, 42.0, 1e9, -2.5])
def test_values_that_are_all_the_same_are_drawn_in_the_frame(value):
    drawn = chart((1.0, value), (2.0, value), (3.0, value))
    places = coordinates(drawn.curves[0].line)
    assert len(places) == 3
    assert all(0 <= x <= SIDE and 0 <= y <= SIDE for x, y in places)
    assert len({tick.percent for tick in drawn.y.ticks}) == len(drawn.y.ticks) > 1


def test_what_is_no_finite_number_is_left_out():
    drawn = chart((1.0, 1.0), (2.0, math.nan), (3.0, math.inf), (4.0, 1e300), (5.0, 0.5))
    places = coordinates(drawn.curves[0].line)
    assert [round(x) for x, _ in places] == [200, 1000]
    assert "nan" not in drawn.curves[0].line
    assert chart((1.0, math.nan)) is None
    assert line_chart([]) is None


def test_curves_of_one_chart_share_its_frame():
    drawn = line_chart([Series("a", [(0.0, 0.0), (10.0, 1.0)]), Series("b", [(5.0, 2.0)], True)])
    (a, b) = drawn.curves
    assert coordinates(a.line) == [(0.0, 1000.0), (1000.0, 500.0)]
    assert coordinates(b.dots) == [(500.0, 0.0)]


def test_ten_thousand_points_are_thinned_and_keep_their_extremes():
    draw = random.Random(7)
    points = [(float(step), draw.random()) for step in range(10_000)]
    points[5_003] = (5_003.0, 9.0)
    points[5_004] = (5_004.0, -9.0)
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS
    assert kept == sorted(kept)
    assert {points[0], points[-1], points[5_003], points[5_004]} <= set(kept) <= set(points)
    assert thinned(points[:MOST_POINTS]) == points[:MOST_POINTS]
    assert len(chart(*points).curves[0].line) < 20_000


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 270, [0, 100, 200, 300]),
        (0.37, 0.41, [0.37, 0.38, 0.39, 0.4, 0.41]),
        (-1, 3, [-1, 0, 1, 2, 3]),
        (0, 2e-4, [0, 5e-5, 1e-4, 1.5e-4, 2e-4]),
    ],
)
def test_ticks_are_round_and_hold_the_values_between_them(low, high, expected):
    found = tick_values(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert found == pytest.approx(expected)


def test_labels_of_small_values_share_a_power_of_ten():
    axis = chart((1.0, 0.0), (2.0, 2e-4)).y
    assert axis.exponent == -4
    assert [axis.label(tick) for tick in axis.ticks] == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert axis.digits == 1
    assert chart((1.0, 0.0), (2.0, 3_000.0)).y.exponent == 0


def test_an_axis_from_zero_shows_how_far_a_value_fell():
    assert chart((1.0, 100.0), (2.0, 90.0)).y.ticks[0].value == 90.0
    assert chart((1.0, 100.0), (2.0, 90.0), from_zero=True).y.ticks[0].value == 0.0


@pytest.mark.parametrize("lengths", [[7], [7, 7, 7], list(range(1, 500)), [3, 4096], [16, 17, 90]])
def test_a_histogram_counts_every_row_once(lengths):
    drawn = histogram(lengths, 512)
    assert sum(one.count for one in drawn.bins) == len(lengths)
    assert len(drawn.bins) <= 40
    for one in drawn.bins:
        assert one.count == sum(one.start <= length <= one.end for length in lengths)
        assert one.left >= 0
        assert one.left + one.width <= SIDE + 1e-9
        assert one.top + one.height == pytest.approx(SIDE)
    assert all(0 <= tick.percent <= 100 for tick in (*drawn.x.ticks, *drawn.y.ticks))


def test_rows_beyond_the_limit_are_told_apart():
    drawn = histogram([10, 20, 30, 90, 95], 50)
    assert [one.start for one in drawn.bins if one.truncated] == [90, 95]
    assert 0 < drawn.limit < 100
    assert histogram([10, 20], 50).limit is None
    assert histogram([], 50) is None


def test_a_whisker_ends_where_the_scale_ends():
    found = whisker(Interval(0.5, -0.1, 1.2))
    assert (found.low, found.mean, found.high) == (0.0, 500.0, 1000.0)


def text(pieces):
    return "".join(piece.text for piece in pieces)


def marked(pieces):
    return [piece.text for piece in pieces if piece.differs]


def test_the_words_that_differ_are_marked_on_both_sides():
    expected, answer = (
        '{"category": "refund", "urgent": false}',
        '{"category": "bug", "urgent": false}',
    )
    found = mark_differences(expected, answer)
    assert (found.state, found.words) == ("partly", 1)
    assert (marked(found.expected), marked(found.answer)) == (["refund"], ["bug"])
    assert (text(found.expected), text(found.answer)) == (expected, answer)


@pytest.mark.parametrize(
    ("expected", "answer", "state", "words"),
    [
        ("a b", "a b", "equal", 0),
        ("", "", "equal", 0),
        ("a b c", "x y z", "throughout", 3),
        ("a b c", "", "throughout", 0),
        ("a b c", "a b c d", "partly", 1),
        ("a b", "a  b", "partly", 0),
        ("word " * 3_000, "word " * 3_001, "throughout", 3_001),
        ("שלום עולם", "שלום \U0001f9c0", "partly", 1),
    ],
)
def test_how_far_an_answer_is_from_the_expected_one(expected, answer, state, words):
    found = mark_differences(expected, answer)
    assert (found.state, found.words) == (state, words)
    assert (text(found.expected), text(found.answer)) == (expected, answer)
