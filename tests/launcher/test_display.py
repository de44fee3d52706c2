"""Names, paths and messages are shown as they are, on every way to the terminal."""

import ast
import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from contract.events import Note, Progress
from contract.manifest import Check
from contract.results.prepare import LengthFigures, PrepareResult
from launcher.cli import data_report, doctor, summary
from launcher.display import Display, distinct_parts, styled, terminal
from launcher.evaluate import report
from launcher.evaluate.intervals import Interval
from launcher.evaluate.record import (
    Counts,
    Evaluation,
    Example,
    GateDecision,
    GateLine,
    ModelIdentity,
    Scores,
    SetResult,
)
from launcher.gate import card
from launcher.project import ROOT
from launcher.serving import verification

HOSTILE = ("[bold].json", "[/v2]", "[/]", "x\\", "C:\\[a]\\", ":bomb:", "{}", "[link=a]b", "%s")
NAMES = pytest.mark.parametrize("name", HOSTILE)


@pytest.fixture(params=["terminal", "file", "a console of rich's own"])
def console(request):
    options = {"file": io.StringIO(), "width": 200, "force_terminal": request.param == "terminal"}
    # What is shown is right on a console that reads markup, too.
    return Console(**options, emoji=False) if "rich" in request.param else terminal(**options)


def shown(console):
    return console.file.getvalue()


@NAMES
def test_a_display_shows_names_as_they_are(console, name):
    display = Display(console=console)
    display.note(f"note {name}")
    display.up_to_date(f"stage {name}")
    with display.working(f"work {name}", f"what {name}") as line:
        line.on_event(Note(text=f"said {name}"))
        line.on_event(Progress(doing=f"doing {name}", done=1, total=2, unit=name))
    for word in ("note", "stage", "work", "said"):
        assert f"{word} {name}" in shown(console)


@NAMES
def test_a_text_that_nobody_styled_is_shown_as_it_is(name):
    console = terminal(file=io.StringIO(), width=200)
    console.print(f"said {name}")
    assert shown(console) == f"said {name}\n"


@NAMES
def test_styles_are_ours_and_words_are_theirs(name):
    text = styled("[bold]{}[/] in {} [dim]{}[/]", name, name, 3)
    assert text.plain == f"{name} in {name} 3"
    assert text.spans[0].style == "bold"
    assert text[len(name) + 4].plain == name[0]
    with pytest.raises(ValueError, match="has no place"):
        styled("{}", 1, 2)


def evaluation(name):
    half = Interval(mean=0.5, low=0.4, high=0.6)
    counts = Counts(empty=1, no_json=0, truncated=0, repetition_loop=0)
    scores = Scores(score=half, counts=counts, row_scores=[0.0, 1.0])
    who = ModelIdentity(name=f"model {name}", by=f"by {name}", digest="d", model_digest=None)
    return Evaluation(
        model=who,
        base=who.model_copy(update={"name": f"base {name}"}),
        sets=[
            SetResult(
                set=f"set {name}",
                kind="task",
                metrics=["exact"],
                rows=2,
                model=scores,
                base=scores,
                difference=half,
                verdict="better",
                regression=False,
                max_new_tokens=(64, 68),
            )
        ],
        dropped=[],
        examples=[
            Example(
                where=f"where {name}",
                question=f"asked {name}",
                expected=f"expected {name}",
                model=f"said {name}",
                base=f"before {name}",
            )
        ],
        limit=None,
        max_new_tokens=68,
        max_skill_loss=0.05,
        created="now",
    )


@NAMES
def test_an_evaluation_and_its_card_show_names_as_they_are(console, name):
    found = evaluation(name)
    report.show(found, console)
    for word in ("model", "by", "base", "set", "where", "asked", "expected", "said", "before"):
        assert f"{word} {name}" in shown(console)
    line = GateLine(name=f"demand {name}", outcome="failed", found=f"found {name}")
    card.show(found, GateDecision.of([line], []), console)
    for word in ("demand", "found"):
        assert f"{word} {name}" in shown(console)


@NAMES
def test_checks_and_findings_show_messages_as_they_are(console, name):
    verification.show([Check(name=f"line {name}", passed=False, found=f"found {name}")], console)
    finding = doctor.Finding(f"subject {name}", "fail", f"what {name}", f"remedy {name}")
    doctor.show([finding], console)
    for word in ("line", "found", "subject", "what", "remedy"):
        assert f"{word} {name}" in shown(console)


def data_report_of(**findings):
    figures = LengthFigures(min=1, median=2, p95=3, max=4)
    none = {
        name: []
        for name in ("cut", "no_room", "duplicates", "conflicts", "in_both", "laid_out", "lengths")
    }
    counts = {"rows": 1, "train": 1, "held_out": 0, "max_length": 9}
    return PrepareResult(**counts, tokens=figures, answer_tokens=figures, **none | findings)


@NAMES
def test_a_data_report_shows_paths_as_they_are(console, name):
    where = f"rows {name}:1"
    found = data_report_of(no_room=[where], lengths=[3, 12], not_named={"no_room": 6})
    data_report.show(found, SimpleNamespace(dataset_path=f"data {name}"), console)
    assert f"data {name}" in shown(console)
    assert where in shown(console)


def test_a_data_report_counts_the_findings_that_it_does_not_name():
    out = io.StringIO()
    pairs = [(f"a:{n}", f"b:{n}") for n in range(7)]
    cut = [{"where": "a:1", "tokens": 3}]
    found = data_report_of(
        duplicates=pairs, cut=cut, lengths=[3, 12, 29], not_named={"duplicates": 2000, "cut": 1}
    )
    data_report.show(found, SimpleNamespace(dataset_path="d"), Console(file=out, width=200))
    said = out.getvalue()
    assert "2007 rows occur twice" in said
    assert "... and 2002 more" in said
    assert "2 rows are longer than max_length 9 and are truncated, by 23 tokens in total" in said


@NAMES
def test_a_summarys_examples_show_answers_as_they_are(console, name):
    example = SimpleNamespace(
        prompt=f"asked {name}", expected=f"wanted {name}", base=f"base {name}", tuned=f"now {name}"
    )
    summary._examples([example], console)
    for word in ("asked", "wanted", "base", "now"):
        assert f"{word} {name}" in shown(console)


def test_no_module_makes_a_console_of_its_own_or_escapes_markup():
    for file in sorted((ROOT / "launcher").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        calls = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "escape" not in calls, file
        assert "Console" not in calls or file.name == "display.py", file


def test_rows_that_all_ask_the_same_are_shown_by_what_differs():
    asked = "Sort this message to a shop. Reply with JSON: category, urgent, order.\n\n"
    assert distinct_parts([f"{asked}Where is it?", f"{asked}Where are they?"]) == [
        "… Where is it?",
        "… Where are they?",
    ]


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["one question alone, with nothing that it could have in common with another one"],
        ["What is 1 + 1?", "What is 2 + 2?"],
        ["Sort it.\n\nWhere is my parcel?", "Sort it.\n\nWhere are my parcels?"],
    ],
)
def test_short_openings_and_single_rows_are_shown_whole(texts):
    assert distinct_parts(texts) == texts
