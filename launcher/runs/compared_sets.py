"""The scores of two runs' last evaluations, set by set."""

from __future__ import annotations

from typing import Literal

from contract.record import Record
from launcher.evaluate.intervals import Interval, Verdict, verdict
from launcher.evaluate.paired_differences import mean_difference
from launcher.evaluate.record import Evaluation, SetResult
from launcher.runs.changed_answers import RunAnswers


class ComparedSet(Record):
    """An evaluation set's scores with their 95 % intervals, as far as both were evaluated on it.

    `difference` is that of B from A over the same rows, None where the questions are not known to
    be the same.
    """

    set: str
    kind: Literal["task", "skill"]
    a: Interval | None
    b: Interval | None
    difference: Interval | None
    verdict: Verdict | None


def compared_sets(
    a: Evaluation | None, b: Evaluation | None, ours: RunAnswers, theirs: RunAnswers
) -> list[ComparedSet]:
    """The sets of either, the task's first."""
    sets = [{result.set: result for result in found.sets} if found else {} for found in (a, b)]
    return [
        _compared_set(name, sets[0].get(name), sets[1].get(name), ours=ours, theirs=theirs)
        for name in {**sets[0], **sets[1]}
    ]


def _compared_set(
    name: str, a: SetResult | None, b: SetResult | None, *, ours: RunAnswers, theirs: RunAnswers
) -> ComparedSet:
    kind = next(found.kind for found in (a, b) if found is not None)
    difference = None
    if a is not None and b is not None and ours.asked_in(name) == theirs.asked_in(name) != []:
        difference = mean_difference(b.model.row_scores, a.model.row_scores)
    return ComparedSet(
        set=name,
        kind=kind,
        a=a.model.score if a is not None else None,
        b=b.model.score if b is not None else None,
        difference=difference,
        verdict=verdict(difference) if difference is not None else None,
    )
