"""From answers to results: a score each, an interval for each set, a verdict beside the base."""

from __future__ import annotations

from collections.abc import Sequence

from contract.evaluation import Item
from contract.metrics import METRICS, is_json, score
from launcher.evaluate.intervals import mean_difference, mean_score, verdict
from launcher.evaluate.record import Counts, Example, Scores, SetResult
from launcher.serving.chat_model import Answer

_EXAMPLES = 3


def results(
    items: Sequence[Item],
    *,
    ours: Sequence[Answer],
    base: Sequence[Answer] | None,
    max_skill_loss: float,
) -> list[SetResult]:
    """One result for each set, the task's first.

    Args:
        items: the questions of all sets.
        ours: the model's answers to them, in the same order.
        base: the base's, where there is one.
        max_skill_loss: what a skill may lose.
    """
    sets = dict.fromkeys((item.kind, item.set) for item in items)
    found = []
    for kind, name in sorted(sets, key=lambda pair: pair[0] != "task"):
        rows = [n for n, item in enumerate(items) if (item.kind, item.set) == (kind, name)]
        asked = [items[n] for n in rows]
        our_scores = _scores(asked, [ours[n] for n in rows])
        result = SetResult(
            set=name,
            kind=kind,
            metrics=sorted({item.metric for item in asked}),
            rows=len(rows),
            model=Scores(
                score=mean_score(our_scores), counts=_counts(asked, [ours[n] for n in rows])
            ),
            base=None,
            difference=None,
            verdict=None,
            regression=False,
        )
        if base is not None:
            theirs = [base[n] for n in rows]
            their_scores = _scores(asked, theirs)
            difference = mean_difference(our_scores, their_scores)
            lost = verdict(difference, max_skill_loss) == "worse"
            result = result.model_copy(
                update={
                    "base": Scores(score=mean_score(their_scores), counts=_counts(asked, theirs)),
                    "difference": difference,
                    "verdict": verdict(difference),
                    "regression": kind == "skill" and lost,
                }
            )
        found.append(result)
    return found


def examples(
    items: Sequence[Item], ours: Sequence[Answer], base: Sequence[Answer] | None
) -> list[Example]:
    """The first rows of the task that the model has not wholly right."""
    wrong = [
        number
        for number, item in enumerate(items)
        if item.kind == "task" and score(item.metric, ours[number].text, item.expected) < 1
    ]
    return [
        Example(
            where=items[number].where,
            question=items[number].messages[-1]["content"],
            expected=items[number].expected,
            model=ours[number].text,
            base=base[number].text if base is not None else None,
        )
        for number in wrong[:_EXAMPLES]
    ]


def _scores(items: Sequence[Item], answers: Sequence[Answer]) -> list[float]:
    return [
        score(item.metric, answer.text, item.expected)
        for item, answer in zip(items, answers, strict=True)
    ]


def _counts(items: Sequence[Item], answers: Sequence[Answer]) -> Counts:
    return Counts(
        empty=sum(not answer.text.strip() for answer in answers),
        no_json=sum(
            METRICS[item.metric].answers_are_json and not is_json(answer.text.strip())
            for item, answer in zip(items, answers, strict=True)
        ),
        truncated=sum(answer.ended == "length" for answer in answers),
        repetition_loop=sum(answer.ended == "repetition_loop" for answer in answers),
    )
