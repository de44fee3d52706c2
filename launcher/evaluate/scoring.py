"""From answers to results: a score each, an interval for each set, a verdict beside the base."""

from __future__ import annotations

from collections.abc import Sequence

from contract.evaluation import Item
from contract.metrics import METRICS, is_json, score
from launcher.evaluate.intervals import mean_score, verdict
from launcher.evaluate.paired_differences import mean_difference, set_verdicts
from launcher.evaluate.record import Counts, Example, Scores, SetResult
from launcher.serving.chat_model import Answer

_EXAMPLES = 3


def results(
    items: Sequence[Item],
    *,
    bounds: Sequence[int],
    ours: Sequence[Answer],
    base: Sequence[Answer] | None,
    max_skill_loss: float,
) -> list[SetResult]:
    """One result for each set, the task's first.

    Args:
        items: the questions of all sets.
        bounds: the most tokens that an answer to each could have.
        ours: the model's answers to them, in the same order.
        base: the base's, where there is one.
        max_skill_loss: what a skill may lose.
    """
    sets = dict.fromkeys((item.kind, item.set) for item in items)
    found = []
    for kind, name in sorted(sets, key=lambda pair: pair[0] != "task"):
        rows = [n for n, item in enumerate(items) if (item.kind, item.set) == (kind, name)]
        asked = [items[n] for n in rows]
        model = _scored(asked, [ours[n] for n in rows])
        theirs = _scored(asked, [base[n] for n in rows]) if base is not None else None
        difference = None
        if theirs is not None:
            difference = mean_difference(model.row_scores, theirs.row_scores)
        found.append(
            SetResult(
                set=name,
                kind=kind,
                metrics=sorted({item.metric for item in asked}),
                rows=len(rows),
                model=model,
                base=theirs,
                difference=difference,
                verdict=verdict(difference) if difference is not None else None,
                regression=False,
                max_new_tokens=(min(bounds[n] for n in rows), max(bounds[n] for n in rows)),
            )
        )
    return _with_verdicts(found, max_skill_loss)


def _with_verdicts(sets: Sequence[SetResult], max_skill_loss: float) -> list[SetResult]:
    """The sets with what is shown of each skill, all of them considered."""
    skills = [(result.set, result.paired()) for result in sets if result.kind == "skill"]
    said = set_verdicts({name: found for name, found in skills if found}, max_skill_loss)
    return [
        result.model_copy(
            update={"verdict": said[result.set], "regression": said[result.set] == "worse"}
        )
        if result.kind == "skill" and result.set in said
        else result
        for result in sets
    ]


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


def _scored(items: Sequence[Item], answers: Sequence[Answer]) -> Scores:
    scores = [
        score(item.metric, answer.text, item.expected)
        for item, answer in zip(items, answers, strict=True)
    ]
    return Scores(score=mean_score(scores), counts=_counts(items, answers), row_scores=scores)


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
