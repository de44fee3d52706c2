"""Which answers two runs give otherwise: to evaluation sets, and to held-out rows.

Of held-out rows a run keeps the examples that its training ends with, by the model in training, and
the reference's, by the f16 file. Of its last evaluation it keeps every answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from contract import paths
from contract.answer_text import answer_text
from contract.digest import digest_of_value
from contract.errors import UserError
from contract.reasoning import without_reasoning
from contract.record import Record
from contract.reference import Question
from contract.results.train import TrainResult
from launcher.evaluate.recorded_answers import RecordedAnswer
from launcher.pipeline.finished_run import Run
from launcher.runs.prepared_rows import conversations

Source = Literal["evaluation", "held-out example", "reference"]


class ChangedAnswer(Record):
    """A question, and the two answers to it.

    `where` is the set and the row of an evaluation. Scores are from 0 to 1, and None where nobody
    knows what is expected.
    """

    source: Source
    where: str | None
    question: str
    expected: str | None
    a: str
    b: str
    a_score: float | None
    b_score: float | None


class ComparedAnswers(Record):
    """How many questions both were asked, by source, and the answers that are not the same: first
    those whose score changed.
    """

    compared: dict[Source, int]
    changed: list[ChangedAnswer]


@dataclass(frozen=True)
class _Answer:
    source: Source
    where: str | None
    question: str
    expected: str | None
    text: str
    score: float | None


@dataclass(frozen=True)
class RunAnswers:
    """What one run's model said: to an evaluation, in the examples, and in the reference."""

    evaluated: Sequence[RecordedAnswer]
    examples: Mapping[str, _Answer]
    reference: Mapping[str, _Answer]

    def asked_in(self, name: str) -> list[str]:
        """The questions of an evaluation set, each by its digest, in their order."""
        return [_item_digest(one) for one in self.evaluated if one.item.set == name]


def held_out_answers(
    run: Run, trained: TrainResult | None
) -> tuple[dict[str, _Answer], dict[str, _Answer]]:
    """The examples of its training and the held-out questions of its reference, by question."""
    examples = {}
    for one in trained.held_out.examples if trained is not None else ():
        score = float(bool(one.tuned) and one.tuned == one.expected)
        answer = _Answer("held-out example", None, one.prompt, one.expected, one.tuned, score)
        examples[digest_of_value([one.prompt, one.expected])] = answer
    return examples, dict(_reference(run))


def compared_answers(a: RunAnswers, b: RunAnswers) -> ComparedAnswers:
    """Both runs' answers to the questions that both were asked."""
    examples = list(_pairs(a.examples, b.examples))
    # A row that is among the examples is asked by the reference once more.
    known = {(one.question, one.expected) for one, _ in examples}
    reference = [
        pair
        for pair in _pairs(a.reference, b.reference)
        if (pair[0].question, pair[0].expected) not in known
    ]
    evaluated = list(_pairs(_evaluated(a), _evaluated(b)))
    pairs = [*evaluated, *examples, *reference]
    changed = [
        ChangedAnswer(
            source=one.source,
            where=one.where,
            question=one.question,
            expected=one.expected,
            a=one.text,
            b=other.text,
            a_score=one.score,
            b_score=other.score,
        )
        for one, other in pairs
        if one.text != other.text
    ]
    compared = {
        name: len(found)
        for name, found in (
            ("evaluation", evaluated),
            ("held-out example", examples),
            ("reference", reference),
        )
        if found
    }
    return ComparedAnswers(
        compared=compared, changed=sorted(changed, key=lambda one: one.a_score == one.b_score)
    )


def _pairs(a: Mapping[str, _Answer], b: Mapping[str, _Answer]) -> Iterator[tuple[_Answer, _Answer]]:
    return ((answer, b[key]) for key, answer in a.items() if key in b)


def _evaluated(run: RunAnswers) -> dict[str, _Answer]:
    return {
        _item_digest(one): _Answer(
            "evaluation",
            f"{one.item.set}: {one.item.where}",
            one.item.messages[-1]["content"],
            one.item.expected,
            one.text,
            one.score,
        )
        for one in run.evaluated
    }


def _item_digest(one: RecordedAnswer) -> str:
    return digest_of_value(one.item.model_dump(include={"set", "messages", "tools", "expected"}))


def _reference(run: Run) -> Iterator[tuple[str, _Answer]]:
    with suppress(FileNotFoundError, UserError):
        asked = [one for one in run.reference.questions if one.held_out]
        expected = _expected(run, {_question_digest(one) for one in asked})
        for one in asked:
            said = without_reasoning(one.answer).strip()
            wanted = expected.get(_question_digest(one))
            score = None if wanted is None else float(bool(said) and said == wanted)
            question = one.messages[-1]["content"]
            answer = _Answer("reference", None, question, wanted, said, score)
            yield digest_of_value([one.messages, one.tools, wanted]), answer


def _question_digest(question: Question) -> str:
    return digest_of_value([question.messages, question.tools])


def _expected(run: Run, wanted: set[str]) -> dict[str, str]:
    """The right answers to these questions, as far as the run has its held-out rows."""
    found: dict[str, str] = {}
    # A file may be gone, or damaged.
    with suppress(OSError, ValueError, LookupError, TypeError):
        for row in conversations(run.folder / paths.PREPARED_HELD_OUT):
            if len(found) == len(wanted):
                break
            if (digest := row.question_digest) in wanted:
                found[digest] = answer_text(row.messages[-1]).strip()
    return found
