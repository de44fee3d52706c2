"""The story of a run: every stage is brought up to date in turn, and the manifest written."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from contract import paths
from contract.chat_format import ChatFormat
from contract.digest import digest_of_value
from contract.errors import UserError
from contract.events import Metrics
from contract.manifest import Machine, Manifest, StageRecord
from contract.memory_fit import PlannedTraining
from contract.recipe import Recipe
from contract.results.preflight import PreflightResult
from contract.results.prepare import PrepareResult
from contract.results.train import TrainResult
from launcher.display import Display
from launcher.pipeline.code_digest import code_digest
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.finished_run import Run, model_folder
from launcher.pipeline.gguf_files import ModelServer
from launcher.pipeline.inputs import RunInputs, base_of, find_data, gather, inputs_at_hand
from launcher.pipeline.key_changes import key_changes
from launcher.pipeline.memory_plan import planned_training, shape_of, with_memory_decided
from launcher.pipeline.runner import StageContext, StageFolder, StageRunner
from launcher.pipeline.stages import (
    PREFLIGHT,
    PREPARE,
    TRAIN,
    KeyParts,
    Stage,
    key_parts,
    needs_tools,
    training_stages,
)
from launcher.pipeline.training_extent import (
    TrainingExtent,
    last_rate,
    training_extent,
    trains_alike,
)
from launcher.pipeline.work_folder import WorkFolder
from launcher.project import CACHE, VERSION, lock_file
from launcher.runtime.dependency_locks import lock_digest, pinned
from launcher.runtime.engine import Engine
from launcher.runtime.exclusive_lock import exclusive_lock
from launcher.runtime.llama_cpp_sources import is_fetched
from launcher.tracking.tracking import listener, tracked

# The run's folder is named after this stage's key: what comes after it is rebuilt in place.
_NAMING_STAGE = TRAIN.name

_VERSIONS_OF = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "bitsandbytes",
    "accelerate",
    "llama-cpp-python",
)


@dataclass(frozen=True)
class Outcome:
    """A finished run, and which of its stages ran just now."""

    run: Run
    ran: tuple[str, ...]


def train(
    recipe: Recipe,
    engine: Engine,
    display: Display,
    *,
    server: ModelServer | None = None,
    check_templates: Callable[[str | None], None] = lambda _: None,
) -> Outcome:
    """Bring every stage up to date and write the manifest.

    Args:
        server: has the base, where its name is nothing else.
        check_templates: is told, before anything is trained, why Ollama's template language cannot
            write this run's conversations, or None; it raises where the server knows no other.

    Raises:
        UserError: bad input, or a condition that a person can fix.
        StageCrashed: a stage ended by a bug or was killed.
    """
    digests = FileDigests()
    inputs = gather(recipe, engine=engine, display=display, digests=digests, server=server)
    parts = training_key_parts(inputs.recipe, inputs)
    folder = run_folder(inputs.recipe, _keys(parts))
    tags = {"base": inputs.base.digest, **inputs.digests("data", "evaluation")}
    with exclusive_lock(folder):
        with tracked(inputs.recipe, folder, tags, display) as tracking:
            outcome = run_stages(
                folder,
                inputs,
                engine,
                display,
                parts=parts,
                digests=digests,
                check_templates=check_templates,
                on_metrics=listener(tracking),
            )
            if tracking is not None:
                tracking.scores = _scores(outcome.run)
        outcome.run.name_latest()
    digests.save()
    return outcome


def run_stages(
    path: Path,
    inputs: RunInputs,
    engine: Engine,
    display: Display,
    *,
    parts: Mapping[str, KeyParts],
    digests: FileDigests,
    check_templates: Callable[[str | None], None] = lambda _: None,
    on_metrics: Callable[[Metrics], None] = lambda _: None,
) -> Outcome:
    """Bring every stage up to date in a folder that the caller holds, and write its manifest.

    Args:
        parts: what each stage's key is the digest of, as `training_key_parts` has it.

    Raises:
        UserError: bad input, or a condition that a person can fix.
        StageCrashed: a stage ended by a bug or was killed.
    """
    recipe = inputs.recipe
    keys = _keys(parts)
    folder = StageFolder(path, digests)
    context = replace(_context(recipe, inputs, parts), on_metrics=on_metrics)
    runner = StageRunner(folder, context, engine=engine, display=display)
    recipe.write(folder.path / paths.RECIPE)
    inputs.base.write(folder.path / paths.BASE_RECORD)
    ran = []
    for stage in training_stages(recipe):
        # The disk and the memory are other ones at every start.
        if stage == PREFLIGHT and not folder.is_current(TRAIN, keys[TRAIN.name]):
            runner.run(stage, keys[stage.name])
            ran.append(stage.name)
        elif runner.bring_up_to_date(stage, keys[stage.name]):
            ran.append(stage.name)
        check_templates(_needs_template_engine(stage, folder))
    run = Run(folder.path)
    _write_manifest(run, recipe, inputs=inputs, keys=keys, folder=folder)
    return Outcome(run, tuple(ran))


def _scores(run: Run) -> dict[str, float]:
    """What trackers show of a training's end, by the names under which they show it."""
    held_out = run.manifest.result(TrainResult).held_out
    measured = {"loss": held_out.loss, "exact_match": held_out.exact_match}
    return {
        f"eval/{name}_{model}": value
        for name, both in measured.items()
        if both is not None
        for model, value in (("base", both.base), ("tuned", both.tuned))
    }


def _needs_template_engine(stage: Stage, folder: StageFolder) -> str | None:
    """Why Ollama's template language cannot write the conversations, as far as the stage knows."""
    if stage == PREPARE:
        return ChatFormat.read(folder.path / paths.CHAT_FORMAT).needs_template_engine
    record = folder.record(stage.name) if stage == PREFLIGHT else None
    if record is None or record.typed_result(PreflightResult).go_template is not False:
        return None
    return "the base's chat template does more than they can"


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        stages: the name of each, and its state.
        attention: what the base's class takes, where `preflight` looked at it.
        extent: of the training, where it is to run and the data are prepared.
        tokens_per_s: of the last training of this model, where it trained alike.
        memory: what its memory is estimated from; None where the base's shape is not known.
        recipe: with what was left to be decided by the base and this machine.
    """

    stages: list[tuple[str, str]]
    recipe: Recipe
    attention: str | None = None
    extent: TrainingExtent | None = None
    tokens_per_s: float | None = None
    memory: PlannedTraining | None = None


def plan(
    recipe: Recipe, engine: Engine, display: Display, *, server: ModelServer | None = None
) -> Plan:
    """Each stage and what a run would do with it, having done none but `preflight`.

    Raises:
        UserError: the problems that `preflight` found, where the base is there.
    """
    digests = FileDigests()
    # What is said first is what can be mended first.
    find_data(recipe)
    base = base_of(recipe, digests, server)
    shape = shape_of(base)
    recipe = with_memory_decided(recipe, shape)
    inputs = inputs_at_hand(recipe, display=display, digests=digests, base=base)
    if inputs is None:
        return Plan(
            [
                ("base", "to be downloaded or made"),
                *((stage.name, "to run") for stage in training_stages(recipe)),
            ],
            recipe,
            memory=planned_training(recipe, shape, None, None) if shape else None,
        )
    recipe = inputs.recipe
    parts = training_key_parts(recipe, inputs)
    keys = _keys(parts)
    folder = StageFolder(run_folder(recipe, keys), digests)
    before = _compared_with(recipe, folder, display)
    lines = [("base", f"{inputs.base.source} {inputs.base.digest[:12]}")]
    to_run: list[str] = []
    attention = None
    for stage in training_stages(recipe):
        name = stage.name
        if stage == PREFLIGHT:
            state, attention = _planned_preflight(recipe, inputs, folder, parts, engine, display)
            lines.append((name, state))
            continue
        # What an earlier stage writes anew, the later ones read anew.
        after = [earlier for earlier in stage.upstream if earlier in to_run]
        if not after and folder.is_current(stage, keys[name]):
            lines.append((name, "up to date"))
            continue
        to_run.append(name)
        why = _why(before.record(name), parts[name], after, anew=before is not folder)
        lines.append((name, ": ".join(filter(None, [_to_run(stage, folder, keys[name]), why]))))
    report = _data_report(before, keys)
    extent = None
    if report is not None and TRAIN.name in to_run:
        extent = training_extent(recipe, report)
    return Plan(
        lines,
        recipe,
        attention,
        extent=extent,
        tokens_per_s=_rate(recipe, before),
        memory=planned_training(recipe, shape, attention, report) if shape else None,
    )


def _data_report(before: StageFolder, keys: Mapping[str, str]) -> PrepareResult | None:
    """What is known of the rows, where these data were prepared so before."""
    with suppress(UserError):
        record = before.record(PREPARE.name)
        if record is not None and record.key == keys[PREPARE.name]:
            return record.typed_result(PrepareResult)
    return None


def _rate(recipe: Recipe, before: StageFolder) -> float | None:
    with suppress(UserError, FileNotFoundError):
        if trains_alike(recipe, Recipe.read(before.path / paths.RECIPE)):
            return last_rate(before.path / paths.METRICS)
    return None


def _compared_with(recipe: Recipe, folder: StageFolder, display: Display) -> StageFolder:
    """The run of this recipe, where there is one, or else the last one of its model."""
    if folder.path.exists() or not Run.exists(recipe.output_model_name):
        return folder
    # What another version left is compared with nothing.
    with suppress(UserError):
        last = Run.find(recipe.output_model_name)
        if last.is_finished:
            display.note(f"compared with {last.name}, the last run of {recipe.output_model_name}")
            return StageFolder(last.folder, FileDigests())
    return folder


def _why(
    record: StageRecord | None, decided_by: KeyParts, after: Sequence[str], *, anew: bool
) -> str:
    """Why a stage has to run again; nothing where it never ran, or an earlier version ran it.

    Args:
        anew: the record is of another run, and what it wrote lies there.
    """
    if record is None or not record.decided_by:
        return ""
    if changes := key_changes(record.decided_by, decided_by):
        return ", ".join(changes)
    if after:
        # The last of them says why, or the one before it.
        return f"after {after[-1]}"
    return "in a new run" if anew else "what it wrote is gone or was changed"


def _to_run(stage: Stage, folder: StageFolder, key: str) -> str:
    checkpoints = (paths.CHECKPOINTS / paths.checkpoint_name("*")).as_posix()
    names = WorkFolder(folder.path, stage).names_left(key, checkpoints)
    steps = [step for name in names if (step := paths.checkpoint_step(name)) is not None]
    return f"to be resumed after step {max(steps)}" if steps else "to run"


def _planned_preflight(
    recipe: Recipe,
    inputs: RunInputs,
    folder: StageFolder,
    parts: Mapping[str, KeyParts],
    engine: Engine,
    display: Display,
) -> tuple[str, str | None]:
    """Look for problems where that takes seconds, in a folder that is not the run's.

    Returns:
        The stage's state, and the attention that the base's class takes, as far as it is known.
    """
    keys = _keys(parts)
    key = keys[PREFLIGHT.name]
    if folder.is_current(PREFLIGHT, key) and folder.is_current(TRAIN, keys[TRAIN.name]):
        return "up to date", _attention(folder)
    context = _context(recipe, inputs, parts)
    if not (engine.is_ready(recipe.lock, exporter=context.exporter) and is_fetched()):
        return "to run", None
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="plan-") as scratch:
        apart = StageFolder(Path(scratch), FileDigests())
        recipe.write(apart.path / paths.RECIPE)
        StageRunner(apart, context, engine=engine, display=display).run(PREFLIGHT, key)
        return "no problem found", _attention(apart)


def _attention(folder: StageFolder) -> str | None:
    # Another version may have recorded it otherwise, and the plan says less.
    with suppress(UserError):
        record = folder.record(PREFLIGHT.name)
        return None if record is None else record.typed_result(PreflightResult).attention
    return None


def _context(recipe: Recipe, inputs: RunInputs, parts: Mapping[str, KeyParts]) -> StageContext:
    return StageContext(
        lock=recipe.lock,
        inputs=inputs.by_name,
        decided_by=parts,
        gpu=recipe.device == "cuda",
        exporter=needs_tools(recipe),
        labels={"run": _keys(parts)[_NAMING_STAGE], "profile": recipe.profile},
    )


def training_keys(recipe: Recipe, inputs: RunInputs) -> dict[str, str]:
    """Every stage's key, by its name."""
    return _keys(training_key_parts(recipe, inputs))


def _keys(parts: Mapping[str, KeyParts]) -> dict[str, str]:
    return {stage: digest_of_value(decided_by) for stage, decided_by in parts.items()}


def training_key_parts(recipe: Recipe, inputs: RunInputs) -> dict[str, KeyParts]:
    """What every stage's key is the digest of, by its name."""
    parts: dict[str, KeyParts] = {}
    keys: dict[str, str] = {}
    for stage in training_stages(recipe):
        parts[stage.name] = key_parts(
            stage,
            recipe=recipe,
            lock_digest=lock_digest(recipe.lock),
            inputs=inputs.by_name,
            upstream_keys=keys,
        )
        keys[stage.name] = digest_of_value(parts[stage.name])
    return parts


def run_folder(recipe: Recipe, keys: Mapping[str, str]) -> Path:
    """`data/models/<output_model_name>/<key>/`."""
    return model_folder(recipe.output_model_name) / keys[_NAMING_STAGE][:12]


def _write_manifest(
    run: Run, recipe: Recipe, *, inputs: RunInputs, keys: Mapping[str, str], folder: StageFolder
) -> None:
    """Write the manifest, unless the run has one that says the same."""
    stages = training_stages(recipe)
    records = [record for stage in stages if (record := folder.record(stage.name))]
    before = run.manifest if run.is_finished else None
    if before is not None and (before.recipe, before.stages) == (recipe, records):
        return
    versions = {**pinned(recipe.lock), **pinned("llama-cpp")}
    manifest = Manifest(
        affineur_version=VERSION,
        key=keys[_NAMING_STAGE],
        recipe=recipe,
        base=inputs.base,
        data=inputs.digests("data", "evaluation"),
        locks={lock_file(lock).name: lock_digest(lock) for lock in (recipe.lock, "llama-cpp")},
        code={stage.name: code_digest(f"trainer.{stage.name}") for stage in stages},
        versions={name: versions[name] for name in _VERSIONS_OF},
        machine=this_machine(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        stages=records,
        # It names the digest of the model that it is of.
        verification=before.verification if before is not None else None,
    )
    run.write_manifest(manifest)


def this_machine() -> Machine:
    """What a digest may depend on, as it is here."""
    return Machine(platform=platform.platform(), processor=_processor(), cores=os.cpu_count())


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
