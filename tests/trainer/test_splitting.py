"""The split follows from each row alone."""

import pytest

from contract.conversation import Conversation
from contract.digest import digest_of_value
from contract.results.prepare import LengthFigures, not_read
from trainer.prepare.report import TokenizedRow, length_figures, report_on
from trainer.prepare.splitting import (
    DatasetRow,
    conflicts,
    duplicates,
    in_both,
    split,
    unread_columns,
)
from trainer.prepare.tokenizing import Tokens


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


TOOL = {"type": "function", "function": {"name": "f"}}


def test_a_row_without_tools_stays_on_its_side_and_tools_are_part_of_the_question():
    plain = row("Où ?")
    asked = [{"role": "user", "content": "Où ?"}]
    assert plain.question_digest == digest_of_value(asked)
    with_tools = DatasetRow("d:1", Conversation(plain.conversation.messages, tools=[TOOL]))
    other = DatasetRow("d:2", Conversation(plain.conversation.messages, tools=[TOOL, TOOL]))
    assert len({one.question_digest for one in (plain, with_tools, other)}) == 3


def test_prepared_rows_keep_their_tools():
    conversation = Conversation(row("Où ?").conversation.messages, tools=[TOOL])
    written = TokenizedRow(
        DatasetRow("d:1", conversation), Tokens([1, 2], [0, 1], [1], answer=1)
    ).as_json()
    assert written["tools"] == [TOOL]
    assert written["messages"] == conversation.messages


def read_row(where, *unread):
    return DatasetRow(where, Conversation(row("q").conversation.messages, unread=frozenset(unread)))


def test_unread_columns_are_counted_by_rows_the_most_frequent_first():
    rows = [read_row("1", "id", "messages[].date"), read_row("2", "id"), read_row("3", "id", "a")]
    counts = unread_columns(row.conversation for row in rows)
    assert list(counts.items()) == [("id", 3), ("a", 1), ("messages[].date", 1)]
    assert not_read(counts) == "not read: id (3 rows), a (1 row), messages[].date (1 row)"
    # A row of two answers is one row.
    tokenized = [TokenizedRow(one, Tokens([1, 2], [0, 1], [1])) for one in [*rows, rows[0]]]
    report = report_on(tokenized[:3], tokenized[3:], both=[], max_length=16)
    assert report.unread == counts


def test_many_unread_columns_are_named_in_part_and_strange_names_are_shown():
    named = not_read({f"c{n}": 1 for n in range(40)})
    assert named.endswith("c11 (1 row), and 28 more")
    assert not_read({"": 2, "a\x1b[1m": 1}) == "not read: '' (2 rows), 'a\\x1b[1m' (1 row)"
