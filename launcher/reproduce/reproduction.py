"""Rebuild a run from its manifest alone, in a folder of its own, and compare what came of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from contract import paths
from contract.digest import digest_of_file
from contract.errors import UserError
from contract.manifest import Manifest
from contract.record import Record
from launcher.display import Display
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.finished_run import Run, model_folder
from launcher.pipeline.gguf_files import ModelServer
from launcher.pipeline.training import run_stages, training_key_parts
from launcher.project import REPRODUCED, VERSION, shown
from launcher.reproduce.comparison import compare_runs
from launcher.reproduce.conditions import announce, conditions, in_words
from launcher.reproduce.record import REPRODUCTION, Reproduction
from launcher.reproduce.recorded_images import RecordedImages
from launcher.reproduce.recorded_inputs import (
    GivenPlaces,
    find_inputs,
    other_project,
    refuse_other_project,
    under_their_names,
)
from launcher.runtime import gpus, processor
from launcher.runtime.engine import Engine
from launcher.runtime.exclusive_lock import LOCK_FILE, exclusive_lock

# In a folder from the start: what it is for, so that the same command goes on with it.
_BEGUN = Path("reproduces.json")


@dataclass(frozen=True)
class ReproductionRequest:
    """What a person asks for.

    Attributes:
        into: the folder to rebuild in; None for the run's own below `data/reproduced/`.
        given: where inputs lie that are no longer where the run read them.
        with_this_code: rebuild with this project's code and locks where they are not the run's.
    """

    into: Path | None = None
    given: GivenPlaces = field(default_factory=GivenPlaces)
    with_this_code: bool = False


class _Begun(Record):
    """Which run a folder is for."""

    run: str


def reproduce(
    original: Run,
    request: ReproductionRequest,
    engine: Engine,
    display: Display,
    *,
    server: ModelServer | None = None,
) -> Reproduction:
    """Rebuild a run and compare each file; nothing of the run itself is written or used.

    Args:
        server: has the base, where its name is nothing else.

    Raises:
        UserError: an input that is not the run's, or a condition that a person can fix.
        StageCrashed: a stage ended by a bug or was killed.
    """
    manifest = original.manifest
    begun = _Begun(run=f"{manifest.recipe.output_model_name}@{manifest.key}")
    folder = (request.into or reproduction_folder(manifest)).absolute()
    _check_free(folder, original, begun)
    _check_machine(manifest)
    found = conditions(manifest, engine)
    announce(manifest, found, display)
    other = _other_project(manifest, request, display)
    digests = FileDigests()
    inputs = find_inputs(
        manifest,
        request.given,
        engine=engine,
        display=display,
        digests=digests,
        server=server,
        keys_too=not other,
    )
    # What was asked for is this project's code, which the run's images do not have.
    pinned = RecordedImages.of(manifest, engine, use=not other)
    of_images = pinned.conditions(manifest, display)
    for condition in of_images:
        display.note(in_words(condition))
    with exclusive_lock(folder):
        begun.write(folder / _BEGUN)
        inputs = under_their_names(inputs, manifest, folder, digests)
        parts = training_key_parts(inputs.recipe, inputs)
        rebuilt = run_stages(folder, inputs, pinned, display, parts=parts, digests=digests).run
        reproduction = Reproduction(
            run=begun.run,
            manifest=digest_of_file(original.folder / paths.MANIFEST),
            version=VERSION,
            engine=engine.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            other_code=other,
            conditions=[*found, *of_images],
            files=compare_runs(original, rebuilt, display, digests),
        )
        reproduction.write(folder / REPRODUCTION)
    digests.save()
    return reproduction


def reproduction_folder(manifest: Manifest) -> Path:
    """`data/reproduced/<output_model_name>-<key>/`."""
    name = model_folder(manifest.recipe.output_model_name).name
    return REPRODUCED / f"{name}-{manifest.key[:12]}"


def _other_project(manifest: Manifest, request: ReproductionRequest, display: Display) -> list[str]:
    """What of this project is not what made the run, which is refused unless it is asked for."""
    other = other_project(manifest)
    if not request.with_this_code:
        refuse_other_project(manifest, other)
    for what in other:
        display.note(f"not what made the run: {what}")
    return other


def _check_free(folder: Path, original: Run, begun: _Begun) -> None:
    """See that a folder is free, or holds an unfinished reproduction of this run.

    Raises:
        UserError: it is not.
    """
    where = "--into"
    if folder.resolve().is_relative_to(original.folder.resolve()):
        raise UserError.one(where, f"{shown(folder)} is the run's own", "Choose another folder.")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError.one(where, f"{shown(folder)} is no folder", "Choose another name.")
    if not folder.exists() or {entry.name for entry in folder.iterdir()} <= {LOCK_FILE}:
        return
    with suppress(FileNotFoundError, UserError):
        unfinished = not (folder / REPRODUCTION).exists()
        if unfinished and _Begun.read(folder / _BEGUN) == begun:
            return
    raise UserError.one(
        where,
        f"{shown(folder)} is not empty",
        "Delete it, or rebuild in another folder: --into FOLDER.",
    )


def _check_machine(manifest: Manifest) -> None:
    recipe = manifest.recipe
    if recipe.device == "cuda":
        gpus.check_gpu(recipe.lock, recipe.precision)
    else:
        processor.check_precision(recipe.precision)
