"""Two runs side by side: what they were made of and how, what came of it, and what they answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Literal

from pydantic import JsonValue

from contract import paths
from contract.errors import UserError
from contract.manifest import Manifest
from contract.record import Record
from contract.results.train import TrainResult
from launcher.evaluate.intervals import Interval, Verdict, verdict
from launcher.evaluate.paired_differences import mean_difference
from launcher.evaluate.record import Evaluation, SetResult
from launcher.evaluate.recorded_answers import recorded_answers, recorded_evaluation
from launcher.pipeline.finished_run import Run, model_name
from launcher.pipeline.key_changes import INPUT_NAMES
from launcher.pipeline.training_extent import last_rate
from launcher.project import shown
from launcher.runs.changed_answers import (
    ComparedAnswers,
    RunAnswers,
    compared_answers,
    held_out_answers,
)
from launcher.runs.prepared_rows import counted_rows
from launcher.runtime.disk_usage import used_bytes

Unit = Literal["nats", "share", "count", "bytes", "seconds", "tokens/s"]


class ComparedRun(Record):
    """Which run one side is."""

    model: str
    key: str
    folder: str
    created: str


class Difference(Record):
    """A word of the recipe or an input that is not the same; None where a run has none."""

    name: str
    a: JsonValue
    b: JsonValue


class Figure(Record):
    """A number that both runs may have; None where it was not measured."""

    name: str
    unit: Unit
    a: float | None
    b: float | None


class RowCounts(Record):
    """How many prepared rows are in both runs, and in one of them alone."""

    name: str
    both: int
    only_a: int
    only_b: int


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
    outputs = [dict(_outputs(manifest)) for manifest in (ours, theirs)]
    evaluations = recorded_evaluation(a), recorded_evaluation(b)
    answers = _answers(a, evaluations[0]), _answers(b, evaluations[1])
    return Comparison(
        a=_side(a),
        b=_side(b),
        recipe=[
            *differences(*recipes),
            *differences(_changed_by_training(ours), _changed_by_training(theirs)),
        ],
        inputs=[
            *differences(dict(_inputs(ours)), dict(_inputs(theirs))),
            *_evaluated_otherwise(*evaluations),
        ],
        rows=list(_rows(a, b)),
        same_outputs=len(outputs[0].items() & outputs[1].items()),
        outputs=differences(*outputs),
        results=_figures(_results(ours), _results(theirs)),
        sets=_sets(*evaluations, *answers),
        answers=compared_answers(*answers),
        costs=_figures(_costs(a), _costs(b)),
    )


def differences(a: Mapping[str, JsonValue], b: Mapping[str, JsonValue]) -> list[Difference]:
    """What two mappings say otherwise, in the order of the first."""
    return [
        Difference(name=name, a=a.get(name), b=b.get(name))
        for name in {**a, **b}
        if a.get(name) != b.get(name)
    ]


def _side(run: Run) -> ComparedRun:
    return ComparedRun(
        # Of a copy elsewhere, the folder's name says nothing.
        model=run.recipe.output_model_name or model_name(run.folder.parent),
        key=run.manifest.key[:12],
        folder=shown(run.folder),
        created=run.manifest.created,
    )


def _changed_by_training(manifest: Manifest) -> dict[str, JsonValue]:
    trained = _trained(manifest)
    changed = trained.changed if trained is not None else {}
    return {f"{key}, changed while training": value for key, value in changed.items()}


def _trained(manifest: Manifest) -> TrainResult | None:
    with suppress(LookupError, UserError):
        return manifest.result(TrainResult)
    return None


def _inputs(manifest: Manifest) -> Iterator[tuple[str, JsonValue]]:
    """All that is not in the recipe, by what a person calls it."""
    yield INPUT_NAMES["base"], manifest.base.digest
    for name, digest in manifest.data.items():
        yield INPUT_NAMES.get(name, name), digest
    for record in manifest.stages:
        inputs = record.decided_by.get("inputs")
        for name, value in inputs.items() if isinstance(inputs, dict) else ():
            yield INPUT_NAMES.get(name, name), value
    yield from manifest.locks.items()
    yield from manifest.versions.items()
    for stage, digest in manifest.code.items():
        yield f"code of {stage}", digest
    for record in manifest.stages:
        yield f"engine of {record.stage}", record.engine
        yield f"image of {record.stage}", record.image.digest if record.image else None
        yield f"Python of {record.stage}", record.python
    yield "Affineur", manifest.affineur_version
    yield "platform", manifest.machine.platform
    yield "processor", manifest.machine.processor
    yield "cores", manifest.machine.cores


def _evaluated_otherwise(a: Evaluation | None, b: Evaluation | None) -> list[Difference]:
    """Who answered and how much was asked, where both were evaluated."""
    if a is None or b is None:
        return []
    said: list[dict[str, JsonValue]] = [
        {"server of the evaluation": found.model.by, "rows of each evaluation set": found.limit}
        for found in (a, b)
    ]
    return differences(*said)


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


def _outputs(manifest: Manifest) -> Iterator[tuple[str, JsonValue]]:
    for record in manifest.stages:
        yield from record.outputs.items()


_Figures = dict[tuple[str, Unit], float | None]


def _figures(a: _Figures, b: _Figures) -> list[Figure]:
    """Those that at least one run has."""
    return [
        Figure(name=name, unit=unit, a=a.get((name, unit)), b=b.get((name, unit)))
        for name, unit in {**a, **b}
        if (a.get((name, unit)), b.get((name, unit))) != (None, None)
    ]


def _results(manifest: Manifest) -> _Figures:
    trained = _trained(manifest)
    if trained is None:
        return {}
    evaluated = [point for point in trained.losses if point.held_out_loss is not None]
    held_out = trained.held_out
    return {
        ("steps", "count"): trained.steps,
        ("step that was kept", "count"): trained.best_step,
        ("training loss, last", "nats"): trained.losses[-1].loss if trained.losses else None,
        ("held-out loss, last", "nats"): evaluated[-1].held_out_loss if evaluated else None,
        ("held-out loss, base", "nats"): held_out.loss.base if held_out.loss else None,
        ("held-out loss, tuned", "nats"): held_out.loss.tuned if held_out.loss else None,
        ("exact match, base", "share"): held_out.exact_match.base if held_out.exact_match else None,
        ("exact match, tuned", "share"): (
            held_out.exact_match.tuned if held_out.exact_match else None
        ),
    }


def _costs(run: Run) -> _Figures:
    manifest, trained = run.manifest, _trained(run.manifest)
    figures: _Figures = {("the whole run on the disk", "bytes"): used_bytes(run.folder)}
    for name, _ in _outputs(manifest):
        if name.endswith((".gguf", "adapter_model.safetensors")):
            with suppress(OSError):
                figures[name, "bytes"] = (run.folder / name).stat().st_size
    if trained is not None and trained.memory is not None:
        figures["memory at the training's peak", "bytes"] = trained.memory.peak_bytes
    figures["training speed", "tokens/s"] = last_rate(run.folder / paths.METRICS)
    for record in manifest.stages:
        figures[record.stage, "seconds"] = record.seconds
    figures["all stages", "seconds"] = sum(record.seconds for record in manifest.stages)
    return figures


def _answers(run: Run, evaluation: Evaluation | None) -> RunAnswers:
    evaluated = recorded_answers(run, evaluation) if evaluation is not None else []
    return RunAnswers(evaluated, *held_out_answers(run, _trained(run.manifest)))


def _sets(
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
