"""Two runs side by side: what they were made of and how, what came of it, and what they answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from contract import paths
from contract.record import Record
from launcher.evaluate.record import Evaluation
from launcher.evaluate.recorded_answers import recorded_answers, recorded_evaluation
from launcher.pipeline.finished_run import Run, model_name
from launcher.project import shown
from launcher.runs.changed_answers import (
    ComparedAnswers,
    RunAnswers,
    compared_answers,
    held_out_answers,
)
from launcher.runs.compared_figures import Figure, costs, figures, results
from launcher.runs.compared_inputs import (
    Difference,
    changed_by_training,
    differences,
    evaluated_otherwise,
    inputs_of,
)
from launcher.runs.compared_sets import ComparedSet, compared_sets
from launcher.runs.prepared_rows import counted_rows
from launcher.runs.training_result import training_result


class ComparedRun(Record):
    """Which run one side is."""

    model: str
    key: str
    folder: str
    created: str


class RowCounts(Record):
    """How many prepared rows are in both runs, and in one of them alone."""

    name: str
    both: int
    only_a: int
    only_b: int


class Comparison(Record):
    """All of it.

    Attributes:
        recipe: keys of the recipe, and what a training changed for want of memory.
        inputs: digests and names of all else that the runs were made of.
        rows: of what was trained on and held out; empty where a run has no prepared rows any more.
        same_outputs: how many of the files that both made are the same.
        outputs: those that are not, or that one made alone, by their digests.
        results: of the training and on the held-out rows.
        sets: of the last evaluation of each.
        answers: those that changed.
        costs: sizes and times, which differ between two runs of one recipe as well.
    """

    a: ComparedRun
    b: ComparedRun
    recipe: list[Difference]
    inputs: list[Difference]
    rows: list[RowCounts]
    same_outputs: int
    outputs: list[Difference]
    results: list[Figure]
    sets: list[ComparedSet]
    answers: ComparedAnswers
    costs: list[Figure]

    @property
    def nothing_differs(self) -> bool:
        """Whether all but sizes and times is the same."""
        return not (
            self.recipe
            or self.inputs
            or any(rows.only_a or rows.only_b for rows in self.rows)
            or self.outputs
            or any(figure.a != figure.b for figure in self.results)
            or any(found.a != found.b for found in self.sets)
            or self.answers.changed
        )


def compare(a: Run, b: Run) -> Comparison:
    """Two finished runs.

    Raises:
        UserError: another version wrote the manifest of one.
    """
    ours, theirs = a.manifest, b.manifest
    recipes = [manifest.recipe.model_dump(mode="json") for manifest in (ours, theirs)]
    evaluations = recorded_evaluation(a), recorded_evaluation(b)
    answers = _answers(a, evaluations[0]), _answers(b, evaluations[1])
    return Comparison(
        a=_side(a),
        b=_side(b),
        recipe=[
            *differences(*recipes),
            *differences(changed_by_training(ours), changed_by_training(theirs)),
        ],
        inputs=[
            *differences(dict(inputs_of(ours)), dict(inputs_of(theirs))),
            *evaluated_otherwise(*evaluations),
        ],
        rows=list(_rows(a, b)),
        same_outputs=len(ours.outputs.items() & theirs.outputs.items()),
        outputs=differences(ours.outputs, theirs.outputs),
        results=figures(results(ours), results(theirs)),
        sets=compared_sets(*evaluations, *answers),
        answers=compared_answers(*answers),
        costs=figures(costs(a), costs(b)),
    )


def _side(run: Run) -> ComparedRun:
    return ComparedRun(
        # Of a copy elsewhere, the folder's name says nothing.
        model=run.recipe.output_model_name or model_name(run.folder.parent),
        key=run.manifest.key[:12],
        folder=shown(run.folder),
        created=run.manifest.created,
    )


def _rows(a: Run, b: Run) -> Iterator[RowCounts]:
    for name, file in (("trained", paths.PREPARED_TRAIN), ("held out", paths.PREPARED_HELD_OUT)):
        # A file may be gone, or damaged.
        with suppress(OSError, ValueError, LookupError, TypeError):
            ours, theirs = counted_rows(a.folder / file), counted_rows(b.folder / file)
            yield RowCounts(
                name=name,
                both=(ours & theirs).total(),
                only_a=(ours - theirs).total(),
                only_b=(theirs - ours).total(),
            )


def _answers(run: Run, evaluation: Evaluation | None) -> RunAnswers:
    evaluated = recorded_answers(run, evaluation) if evaluation is not None else []
    return RunAnswers(evaluated, *held_out_answers(run, training_result(run.manifest)))
