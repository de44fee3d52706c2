"""A comparison of two runs as one HTML file, in the look of a run's report."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from contract.atomic_write import atomic_write
from contract.results.train import TrainResult
from launcher.pipeline.finished_run import Run
from launcher.project import VERSION, user_path
from launcher.report.charts import Series, line_chart
from launcher.report.differences import MarkedAnswer, Piece, mark_differences
from launcher.report.examples import Asked, short_questions
from launcher.report.language import Language
from launcher.report.page import Page, check_place
from launcher.report.pictures import (
    described_losses,
    held_out_curve,
    training_curve,
    whisker_row,
)
from launcher.runs.changed_answers import ChangedAnswer, ComparedAnswers
from launcher.runs.compared_figures import Figure
from launcher.runs.compared_inputs import by_stages
from launcher.runs.comparison import Comparison, compare
from launcher.runs.training_result import training_result

_FILE_NAME = "comparison.html"
# How a unit's figures are written.
_FORMS = {
    "nats": "general",
    "share": "share",
    "count": "integer",
    "bytes": "size",
    "seconds": "duration",
    "tokens/s": "rate",
}
# Of a kind, beyond which nobody reads on.
_MOST_ANSWERS = 20


@dataclass(frozen=True)
class AnswerRow(Asked):
    """A question that was answered otherwise.

    With a right answer, both are marked where they are not as expected; without, where they differ
    from each other. Scores are from 0 to 100, as they are written.
    """

    expected: tuple[Piece, ...] | None
    a: MarkedAnswer
    b: MarkedAnswer
    a_score: Markup | None
    b_score: Markup | None


@dataclass(frozen=True)
class AnswerGroup:
    """Answers of which B's score is better, worse or the same: how many, and those shown."""

    name: str
    count: int
    rows: list[AnswerRow]


@dataclass(frozen=True)
class SourceCount:
    """How many answers of a source were compared, and how many of them changed."""

    name: str
    compared: int
    changed: int


@dataclass(frozen=True)
class Answers:
    """All that is said of them."""

    total: int
    changed: int
    sources: list[SourceCount]
    groups: list[AnswerGroup]


@dataclass(frozen=True)
class Head:
    """What is seen first: figures that both runs have, and in how many of the sets that were asked
    of both in the same way B is better or worse.
    """

    loss: Figure | None
    exact_match: Figure | None
    better: int
    worse: int
    sets: int


def compare_on_page(a: str, b: str, *, output: str, language: str) -> tuple[Comparison, Path]:
    """Compare two runs that a person names, write the page, and return both and where it is.

    Raises:
        UserError: there is no such run or language, or the place is not free for it.
    """
    spoken = Language.read(language)
    runs = Run.named(a), Run.named(b)
    path = user_path(output, "--output")
    if path.is_dir():
        path = path / _FILE_NAME
    check_place(path, "comparison")
    found = compare(*runs)
    atomic_write(path, render(found, runs, (a, b), spoken))
    return found, path


def render(
    found: Comparison, runs: tuple[Run, Run], names: tuple[str, str], language: Language
) -> str:
    """The document. The same comparison is the same text.

    Args:
        names: what the person called the runs.
    """
    page = Page("comparison", language)
    trained = {
        letter: result
        for letter, run in zip("AB", runs, strict=True)
        if (result := training_result(run.manifest)) is not None
    }
    curves = list(_curves(trained))
    return page.render(
        "comparison.html.jinja",
        found=found,
        version=VERSION,
        command=shlex.join(["./invoke", "compare", *names]),
        forms=_FORMS,
        lede=_lede(found, language),
        head=_head(found),
        inputs=by_stages(found.inputs),
        losses=line_chart(curves),
        losses_legend=[(one.name, _curve_name(one, language)) for one in curves if one.points],
        losses_described=Markup(" ").join(
            language.say("side_described", letter=letter, said=described_losses(one, language))
            for letter, one in trained.items()
        ),
        whiskers=[
            whisker_row(one.set, {"a": ("A", one.a), "b": ("B", one.b)}, language)
            for one in found.sets
        ],
        answers=_answers(found.answers, page),
    )


def _lede(found: Comparison, language: Language) -> Markup:
    if found.recipe:
        keys = Markup(", ").join(Markup("<code>{}</code>").format(one.name) for one in found.recipe)
        return language.count("recipe_differs", len(found.recipe), keys=keys)
    if found.inputs:
        return language.say("inputs_differ")
    return language.say("nothing_differs" if found.nothing_differs else "results_differ")


def _head(found: Comparison) -> Head:
    of_both = {one.name: one for one in found.results if None not in (one.a, one.b)}
    verdicts = [one.verdict for one in found.sets if one.verdict is not None]
    return Head(
        loss=of_both.get("held-out loss, tuned"),
        exact_match=of_both.get("exact match, tuned"),
        better=verdicts.count("better"),
        worse=verdicts.count("worse"),
        sets=len(verdicts),
    )


def _curves(trained: dict[str, TrainResult]) -> Iterable[Series]:
    for letter, result in trained.items():
        yield Series(letter.lower(), training_curve(result))
        yield Series(f"{letter.lower()}-held-out", held_out_curve(result), dotted=True)


def _curve_name(series: Series, language: Language) -> Markup:
    letter, _, held_out = series.name.partition("-")
    return language.say("side_held_out" if held_out else "side_training", letter=letter.upper())


def _answers(answers: ComparedAnswers, page: Page) -> Answers:
    sources = [one.source for one in answers.changed]
    groups: dict[str, list[ChangedAnswer]] = {"better": [], "worse": [], "same": []}
    for one in answers.changed:
        groups[_outcome(one)].append(one)
    return Answers(
        total=sum(answers.compared.values()),
        changed=len(answers.changed),
        sources=[
            SourceCount(re.sub(r"\W", "_", source), count, sources.count(source))
            for source, count in answers.compared.items()
        ],
        groups=[
            AnswerGroup(name, len(changed), _answer_rows(changed[:_MOST_ANSWERS], page))
            for name, changed in groups.items()
        ],
    )


def _outcome(one: ChangedAnswer) -> str:
    if one.a_score is None or one.b_score is None or one.a_score == one.b_score:
        return "same"
    return "better" if one.b_score > one.a_score else "worse"


def _answer_rows(changed: Sequence[ChangedAnswer], page: Page) -> list[AnswerRow]:
    short = short_questions([one.question for one in changed])
    return [_answer_row(one, line, page) for one, line in zip(changed, short, strict=True)]


def _answer_row(one: ChangedAnswer, short: str, page: Page) -> AnswerRow:
    def score(value: float | None) -> Markup | None:
        return None if value is None else page.figure(value, "bound")

    expected = None
    if one.expected is not None:
        expected = (Piece(one.expected, differs=False),) if one.expected else ()
        a, b = (mark_differences(one.expected, text) for text in (one.a, one.b))
    else:
        a, b = mark_differences(one.b, one.a), mark_differences(one.a, one.b)
    return AnswerRow(
        where=one.where,
        question=one.question,
        short=short,
        expected=expected,
        a=a,
        b=b,
        a_score=score(one.a_score),
        b_score=score(one.b_score),
    )
