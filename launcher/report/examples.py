"""Questions with the answers of base and tuned model beside the expected one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.display import distinct_parts, shortened
from launcher.report.differences import MarkedAnswer, mark_differences
from launcher.report.facts import Facts

# What is shown of a question without being asked for.
_MOST_CHARACTERS, _MOST_LINES = 300, 6


@dataclass(frozen=True)
class Asked:
    """A question.

    Attributes:
        where: the row's file and line, where it is known.
        short: what tells the question from the others, in a line.
    """

    where: str | None
    question: str
    short: str

    @property
    def is_long(self) -> bool:
        """Whether only a short form of the question is shown at first."""
        return len(self.question) > _MOST_CHARACTERS or self.question.count("\n") >= _MOST_LINES


@dataclass(frozen=True)
class ExampleRow(Asked):
    """A question with two answers; `base` is None where no base was asked."""

    tuned: MarkedAnswer
    base: MarkedAnswer | None


def held_out_examples(facts: Facts) -> list[ExampleRow]:
    """Those that the training answered before and after."""
    found = facts.trained.held_out.examples
    return [
        ExampleRow(
            where=None,
            question=example.prompt,
            short=short,
            tuned=mark_differences(example.expected, example.tuned),
            base=mark_differences(example.expected, example.base),
        )
        for example, short in zip(
            found, short_questions([one.prompt for one in found]), strict=True
        )
    ]


def wrong_answers(facts: Facts) -> list[ExampleRow]:
    """Those that the evaluation kept for people to look at."""
    found = facts.evaluation.examples if facts.evaluation is not None else []
    return [
        ExampleRow(
            where=example.where,
            question=example.question,
            short=short,
            tuned=mark_differences(example.expected, example.model),
            base=mark_differences(example.expected, example.base)
            if example.base is not None
            else None,
        )
        for example, short in zip(
            found, short_questions([one.question for one in found]), strict=True
        )
    ]


def short_questions(questions: Sequence[str]) -> list[str]:
    """What tells each from the others, in a line."""
    return [shortened(part) for part in distinct_parts(questions)]
