"""The split follows from each row alone."""

import random

import numpy as np
import pytest

from contract.conversation import Conversation
from contract.digest import digest_of_value
from contract.results.prepare import LengthFigures, not_read
from trainer.prepare.report import DatasetReport, Findings, TokenizedRow, length_figures
from trainer.prepare.splitting import DatasetRow, RowDigests, UnreadColumns, is_held_out
from trainer.prepare.tokenizing import Tokens


def row(question, answer="A", where=None):
    return DatasetRow(
        where or question,
        Conversation(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        ),
    )


def split(rows, fraction):
    sides = ([], [])
    for one in rows:
        sides[is_held_out(one.question_digest, fraction)].append(one)
    return sides


def digests(rows):
    found = RowDigests()
    for one in rows:
        found.append(one.question_digest, one.digest)
    return found


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
    assert digests(rows).duplicates().tolist() == [[0, 2]]
    assert digests(rows).conflicts().tolist() == [[0, 1]]
    assert digests(rows[2:]).asked_in(digests(rows[:2])).tolist() == [[0, 0]]


def test_of_many_rows_each_pair_is_the_first_row_and_a_later_one():
    drawn = random.Random(14)
    rows = [row(f"q{drawn.randrange(40)}", drawn.choice("ABC")) for _ in range(300)]
    first, asked, equal, differing = {}, {}, [], []
    for number, one in enumerate(rows):
        if (earlier := first.setdefault(one.digest, number)) != number:
            equal.append([earlier, number])
        if rows[earlier := asked.setdefault(one.question_digest, number)].digest != one.digest:
            differing.append([earlier, number])
    assert len(equal) > 100
    assert digests(rows).duplicates().tolist() == equal
    assert digests(rows).conflicts().tolist() == differing
    train, held_out = digests(rows[:100]), rows[100:]
    both = [
        [asked[one.question_digest], number]
        for number, one in enumerate(held_out)
        if asked[one.question_digest] < 100
    ]
    assert digests(held_out).asked_in(train).tolist() == both
    left_out = np.arange(200) % 3 == 0
    kept = [one for number, one in enumerate(held_out) if number % 3]
    joined = train + digests(held_out).without(left_out)
    assert joined.duplicates().tolist() == digests(rows[:100] + kept).duplicates().tolist()


def test_no_rows_have_no_pairs():
    none = digests([])
    assert len(none.duplicates()) == len(none.conflicts()) == len(none.asked_in(none)) == 0


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
    unread = UnreadColumns()
    for one in rows:
        unread.add(one.conversation)
    counts = unread.counts()
    assert list(counts.items()) == [("id", 3), ("a", 1), ("messages[].date", 1)]
    assert not_read(counts) == "not read: id (3 rows), a (1 row), messages[].date (1 row)"
    # A row of two answers is one row.
    found = DatasetReport(max_length=16)
    for one in rows:
        found.add([TokenizedRow(one, Tokens([1, 2], [0, 1], [1]), of=2)] * 2)
    none = Findings()
    report = found.result(train=4, duplicates=none, conflicts=none, in_both=none)
    assert report.unread == counts
    assert (report.rows, report.train, report.held_out) == (3, 4, 2)


def test_many_unread_columns_are_named_in_part_and_strange_names_are_shown():
    named = not_read({f"c{n}": 1 for n in range(40)})
    assert named.endswith("c11 (1 row), and 28 more")
    assert not_read({"": 2, "a\x1b[1m": 1}) == "not read: '' (2 rows), 'a\\x1b[1m' (1 row)"
