"""Events survive the pipe, and stray prints are not taken for events."""

import io

import pytest

from contract.errors import Problem
from contract.events import Failed, Note, Progress, Result, Started, parse_event
from contract.results.questions import QuestionsResult
from trainer.entrypoint import Reporter


@pytest.mark.parametrize(
    "event",
    [
        Started(python="3.13.5"),
        Progress(doing="training", done=3, total=9, unit="steps", figures={"loss": 0.5}),
        Note(text="« déjà » 🎯\nsecond line"),
        Result(values={"loss": {"base": 1.0, "tuned": float("inf")}, "match": None}),
        Failed(problems=[Problem(where="x:1", what="is bad", remedy="Fix it.")], more=3),
    ],
)
def test_an_event_written_is_the_event_read(event):
    assert parse_event(event.model_dump_json() + "\n") == event


@pytest.mark.parametrize("line", ["loading weights\n", "{}", '{"event": "other"}', "{not json", ""])
def test_other_lines_are_no_events(line):
    assert parse_event(line) is None


def test_every_line_of_a_reporter_is_one_event():
    stream = io.StringIO()
    reporter = Reporter(stream)
    reporter.started()
    reporter.note("two\nlines")
    reporter.progress("x", done=1, total=1, unit="rows")
    reporter.result(QuestionsResult(items=2, dropped=0))
    lines = stream.getvalue().splitlines()
    assert [type(parse_event(line)) for line in lines] == [Started, Note, Progress, Result]


def test_progress_is_thinned_but_its_end_is_always_said():
    stream = io.StringIO()
    reporter = Reporter(stream)
    for done in range(1, 1001):
        reporter.progress("x", done=done, total=1000, unit="rows")
    events = [parse_event(line) for line in stream.getvalue().splitlines()]
    assert len(events) < 100
    assert events[-1].done == 1000
