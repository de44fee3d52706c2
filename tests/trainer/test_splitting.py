"""The split follows from each row alone."""

import pytest

from contract.conversation import Conversation
from contract.results.prepare import LengthFigures
from trainer.prepare.report import length_figures
from trainer.prepare.splitting import DatasetRow, conflicts, duplicates, in_both, split


def row(question, answer="A", where=None):
    return DatasetRow(
        where or question,
        Conversation(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        ),
    )


ROWS = [row(f"question {n}") for n in range(2000)]


def test_about_the_fraction_is_held_out():
    train, held_out = split(ROWS, 0.1)
    assert len(train) + len(held_out) == 2000
    # Binomial(2000, 0.1): 200 with a standard deviation of 13.4; this is five of them.
    assert 133 < len(held_out) < 267


def test_adding_rows_moves_none():
    before = {r.where for r in split(ROWS[:500], 0.1)[1]}
    after = {r.where for r in split(list(reversed(ROWS)), 0.1)[1]}
    assert before == {where for where in after if where in {r.where for r in ROWS[:500]}}


def test_a_larger_fraction_keeps_what_was_held_out():
    small = {r.where for r in split(ROWS, 0.1)[1]}
    large = {r.where for r in split(ROWS, 0.2)[1]}
    assert small < large


def test_the_same_question_stays_on_one_side_whatever_its_answer():
    twins = [row(f"q{n}", answer) for n in range(200) for answer in ("A", "B")]
    train, held_out = split(twins, 0.3)
    assert {r.where for r in train}.isdisjoint(r.where for r in held_out)


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (1.0, 2000)])
def test_the_ends_of_the_range(fraction, expected):
    assert len(split(ROWS, fraction)[1]) == expected


def test_duplicates_conflicts_and_rows_on_both_sides_are_told_apart():
    rows = [row("q", "A", "1"), row("q", "B", "2"), row("q", "A", "3"), row("r", "A", "4")]
    assert duplicates(rows) == [("1", "3")]
    assert conflicts(rows) == [("1", "2")]
    assert in_both(rows[:2], rows[2:]) == [("1", "3")]


def test_length_figures_are_nearest_rank():
    hundred = LengthFigures(min=1, median=50, p95=95, max=100)
    assert length_figures(list(range(1, 101))) == hundred
    assert length_figures([5]) == LengthFigures(min=5, median=5, p95=5, max=5)
