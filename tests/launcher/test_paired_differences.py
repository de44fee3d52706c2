"""Intervals, p-values and numbers of rows are those of the tests that they are named after."""

import math
import random

import pytest

from launcher.evaluate.paired_differences import (
    ONE_SIDED,
    PairedDifferences,
    holm,
    set_verdicts,
)
from launcher.evaluate.student_t import quantile, upper_tail

GRADED = [0.5, -0.25, 0.1, 0.3, 0.2]


@pytest.mark.parametrize(
    ("probability", "freedom", "value"),
    # Abramowitz and Stegun, table 26.10.
    [
        (0.95, 1, 6.314),
        (0.95, 2, 2.920),
        (0.975, 3, 3.182),
        (0.975, 4, 2.776),
        (0.995, 30, 2.750),
        (0.95, 120, 1.658),
        (0.95, 10**6, 1.645),
    ],
)
def test_the_t_distribution_is_the_tables(probability, freedom, value):
    assert quantile(probability, freedom) == pytest.approx(value, abs=5e-4)
    assert upper_tail(value, freedom) == pytest.approx(1 - probability, abs=1e-4)
    assert upper_tail(-value, freedom) == pytest.approx(probability, abs=1e-4)


def test_graded_differences_are_the_paired_t_tests():
    found = PairedDifferences.of(GRADED)
    mean = sum(GRADED) / 5
    deviation = math.sqrt(sum((one - mean) ** 2 for one in GRADED) / 4)
    assert (found.rows, found.freedom) == (5, 4)
    assert found.mean == found.centre == pytest.approx(mean)
    assert found.error == pytest.approx(deviation / math.sqrt(5))
    low, high = found.interval()[1:]
    half = 2.776 * found.error
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=1e-3)
    assert found.p_above(0) == pytest.approx(upper_tail(mean / found.error, 4))
    assert found.p_below(0) == pytest.approx(1 - found.p_above(0))


def test_counted_differences_have_agresti_and_mins_rows():
    # 3 rows won and 1 lost of 10: by their formula with half a row in each cell.
    found = PairedDifferences.of([1.0] * 3 + [-1.0] + [0.0] * 6)
    won, lost, rows = 3.5, 1.5, 12
    assert found.mean == 0.2
    assert found.centre == pytest.approx((won - lost) / rows)
    variance = (won + lost - (won - lost) ** 2 / rows) / (rows - 1)
    assert found.error == pytest.approx(math.sqrt(variance / rows))


@pytest.mark.parametrize("rows", [[0.0], [1.0], [0.0] * 5, [0.3] * 5, [0.3]])
def test_few_rows_that_agree_leave_a_doubt(rows):
    found = PairedDifferences.of(rows)
    assert found.shown_above(-0.08) == "inconclusive"
    assert found.interval().low < found.mean < found.interval().high or found.mean == 1


def test_one_graded_row_takes_no_doubt_from_many_that_are_counted():
    counted = PairedDifferences.of([0.0] * 80)
    mixed = PairedDifferences.of([0.0] * 79 + [0.1])
    assert mixed.error == pytest.approx(counted.error, rel=0.02)


def test_limits_stay_on_the_scale():
    low, high = PairedDifferences.of([1.0, -1.0]).interval()[1:]
    assert (low, high) == (-1, 1)


def test_holm_is_holms():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_set_is_worse_only_beyond_the_bound_and_all_chances_considered():
    lost = PairedDifferences.of([-1.0] * 12 + [0.0] * 48)
    alone = lost.p_below(-0.08)
    assert 0.05 / 8 < alone < 0.05
    assert set_verdicts({"a": lost}, 0.08) == {"a": "worse"}
    assert set_verdicts({"a": lost}, 0.15) == {"a": "inconclusive"}
    same = PairedDifferences.of([0.0] * 60)
    many = {"a": lost, **{str(n): same for n in range(7)}}
    assert set(set_verdicts(many, 0.08).values()) == {"inconclusive"}
    won = PairedDifferences.of([1.0] * 20 + [0.0] * 40)
    assert set_verdicts({**many, "b": won}, 0.08)["b"] == "better"


def test_so_many_rows_as_are_said_to_decide_do_in_80_percent_of_cases():
    rng = random.Random(1)

    def drawn(rows):
        # The model loses 2 points in truth, and may lose 8.
        chances = rng.choices([-1.0, 0.0, 1.0], weights=[0.12, 0.78, 0.10], k=rows)
        return PairedDifferences.of(chances)

    first = PairedDifferences.of([-1.0] * 12 + [0.0] * 78 + [1.0] * 10)
    assert first.shown_above(-0.08, ONE_SIDED) == "inconclusive"
    needed = first.rows_to_decide(-0.08, ONE_SIDED)
    decided = sum(drawn(needed).shown_above(-0.08, ONE_SIDED) == "passed" for _ in range(400))
    assert 0.74 <= decided / 400 <= 0.88


def test_what_lies_at_the_bound_is_decided_by_no_number_of_rows():
    at_the_bound = PairedDifferences.of([-0.08 + 0.2 * (-1) ** n for n in range(50)])
    assert at_the_bound.rows_to_decide(-0.08) is None


def test_the_smallest_visible_loss_is_seen_in_80_percent_of_cases():
    rng = random.Random(2)
    # A fifth of 100 rows differs, as often in one direction as in the other.
    visible = PairedDifferences.of([1.0] * 10 + [-1.0] * 10 + [0.0] * 80).smallest_visible()
    weights = [0.1 + visible / 2, 0.8, 0.1 - visible / 2]
    seen = sum(
        PairedDifferences.of(rng.choices([-1.0, 0.0, 1.0], weights, k=100)).interval().high < 0
        for _ in range(400)
    )
    assert 0.74 <= seen / 400 <= 0.88
