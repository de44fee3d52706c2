"""The story of a run: which stages there are, in which order, and what each stands on."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launcher import sources
from launcher.bases import CachedBase, LocalBase, find_base
from launcher.code import code_digest
from launcher.digests import FileDigests
from launcher.display import Display
from launcher.engine.interface import Engine, Job, Mount
from launcher.locks import lock_digest, pinned
from launcher.project import CACHE, ROOT, VERSION, lock_file, shown
from launcher.runs import model_folder
from launcher.stage import Given, RunFolder, Stage, run_job, stage_key
from trainer.contract import places as names
from trainer.contract.base import BaseIdentity
from trainer.contract.errors import UserError
from trainer.contract.manifest import Manifest
from trainer.contract.recipe import (
    ConvertSection,
    ModelfileSection,
    PrepareSection,
    Recipe,
    TrainSection,
)
from trainer.contract.whole_file import write_whole

PREPARE = Stage("prepare", PrepareSection, (), ("data", "evaluation", "base"), (names.PREPARED,))
TRAIN = Stage(
    "train",
    TrainSection,
    ("prepare",),
    ("base",),
    (names.ADAPTER, names.METRICS, names.HELD_OUT_SCORES),
    may_use_card=True,
)
MERGE = Stage("merge", None, ("train",), ("base",), (names.MERGED,))
CONVERT = Stage("convert", ConvertSection, ("prepare", "merge"), ("llama_cpp",), (names.GGUF,))
MODELFILE = Stage("modelfile", ModelfileSection, ("convert",), (), (names.MODELFILE, names.SERVING))
REFERENCE = Stage(
    "reference", ConvertSection, ("prepare", "merge", "convert"), (), (names.REFERENCE,)
)
STAGES = (PREPARE, TRAIN, MERGE, CONVERT, MODELFILE, REFERENCE)
# The run's folder is named after this stage's key: what comes after it is remade in place.
_NAMING_STAGE = TRAIN

_DATA = ("data", "evaluation")
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
class Inputs:
    """What a run stands on: where it lies, and its digests."""

    data: Path
    evaluation: Path | None
    base: CachedBase | LocalBase
    identity: BaseIdentity
    digests: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """What a run made."""

    folder: Path
    manifest: Manifest
    ran: tuple[str, ...]


def train(recipe: Recipe, engine: Engine, display: Display) -> Outcome:
    """Bring every stage up to date and write the manifest.

    Raises:
        UserError: bad input, or a condition that a person can mend.
        StageCrashed: a stage ended by a bug or was killed.
    """
    digests = FileDigests()
    inputs = gather(recipe, engine, display, digests)
    keys = stage_keys(recipe, inputs)
    folder = run_folder(recipe, keys)
    run = RunFolder(folder, digests)
    ran = []
    with _alone(folder):
        write_whole(folder / names.RECIPE, recipe.model_dump_json(indent=1) + "\n")
        write_whole(folder / names.BASE_RECORD, inputs.identity.model_dump_json(indent=1) + "\n")
        for stage in STAGES:
            if run.is_current(stage, keys[stage.name]):
                display.up_to_date(stage.name)
                continue
            labels = {"run": keys[_NAMING_STAGE.name], "profile": recipe.profile}
            given = Given(recipe.lock, recipe.device, mounts(stage, inputs, display), labels)
            run.run(stage, keys[stage.name], given, engine, display)
            ran.append(stage.name)
        manifest = _manifest(recipe, inputs, keys, run)
    digests.save()
    return Outcome(folder, manifest, tuple(ran))


def plan(recipe: Recipe) -> list[tuple[str, str]]:
    """Each stage and what a run would do with it, without doing anything."""
    digests = FileDigests()
    base = find_base(recipe.model_to_fine_tune, recipe.model_revision, recipe.lock)
    identity = base.identity() if isinstance(base, CachedBase) else base.identity(digests)
    if identity is None:
        return [("base", "to be fetched or made"), *((stage.name, "to run") for stage in STAGES)]
    inputs = _inputs(recipe, base, identity, digests)
    keys = stage_keys(recipe, inputs)
    run = RunFolder(run_folder(recipe, keys), digests)
    lines = [("base", f"{identity.source} {identity.digest[:12]}")]
    stale = False
    for stage in STAGES:
        # What an earlier stage leaves anew, the later ones read anew.
        stale = stale or not run.is_current(stage, keys[stage.name])
        lines.append((stage.name, "to run" if stale else "up to date"))
    return lines


def gather(recipe: Recipe, engine: Engine, display: Display, digests: FileDigests) -> Inputs:
    """Find the inputs and put the base into the cache where it is not.

    Raises:
        UserError: a dataset that is not there, a base that is not to be had.
    """
    find_data(recipe)
    base = find_base(recipe.model_to_fine_tune, recipe.model_revision, recipe.lock)
    identity = (
        _cached(base, recipe, engine, display)
        if isinstance(base, CachedBase)
        else base.identity(digests)
    )
    return _inputs(recipe, base, identity, digests)


def stage_keys(recipe: Recipe, inputs: Inputs) -> dict[str, str]:
    """Every stage's key, by its name."""
    keys: dict[str, str] = {}
    lock = lock_digest(recipe.lock)
    for stage in STAGES:
        section = recipe.section(stage.section).model_dump(mode="json") if stage.section else {}
        keys[stage.name] = stage_key(stage, section, lock, inputs.digests, keys)
    return keys


def run_folder(recipe: Recipe, keys: dict[str, str]) -> Path:
    """`data/models/<output_model_name>/<key>/`."""
    return model_folder(recipe.output_model_name) / keys[_NAMING_STAGE.name][:12]


def find_data(recipe: Recipe) -> tuple[Path, Path | None]:
    """The dataset, and the evaluation set where the recipe has one.

    Raises:
        UserError: one of them is not there.
    """
    evaluation = recipe.evaluation_path
    return (
        find_dataset(recipe.dataset_path, "dataset_path"),
        find_dataset(evaluation, "evaluation_path") if evaluation else None,
    )


def find_dataset(path: str, key: str) -> Path:
    """The file that a key means: looked for from where you stand, then from the project.

    Raises:
        UserError: there is no such file.
    """
    given = Path(path).expanduser()
    for place in (given, ROOT / given):
        if place.is_file():
            return place.resolve()
    what = "is a folder" if given.is_dir() or (ROOT / given).is_dir() else "is not there"
    folder = (ROOT / given).parent
    near = sorted(entry.name for entry in folder.glob("*.*") if entry.is_file())[:8]
    remedy = f"In {shown(folder)}: {', '.join(near)}." if near else "Give a file: --data FILE."
    raise UserError.one(key, f"{path} {what}", remedy)


def _inputs(
    recipe: Recipe, base: CachedBase | LocalBase, identity: BaseIdentity, digests: FileDigests
) -> Inputs:
    data, evaluation = find_data(recipe)
    found = {
        "data": digests.of(data),
        "base": identity.digest,
        "llama_cpp": lock_digest("llama-cpp"),
    }
    if evaluation:
        found["evaluation"] = digests.of(evaluation)
    return Inputs(data, evaluation, base, identity, found)


def _cached(base: CachedBase, recipe: Recipe, engine: Engine, display: Display) -> BaseIdentity:
    identity = base.identity()
    if identity is None:
        write_whole(base.folder / names.BASE_REQUEST, base.request.model_dump_json() + "\n")
        token = os.environ.get("HF_TOKEN")
        job = Job(
            module="trainer.base",
            lock=recipe.lock,
            mounts=(Mount("run", base.folder, writable=True),),
            log=CACHE / "logs" / "base.log",
            network=base.request.kind == "hub",
            secrets={"HF_TOKEN": token} if token and base.request.kind == "hub" else {},
            labels={"profile": recipe.profile},
        )
        run_job("base", job, engine, display)
        identity = base.identity()
        if identity is None:
            raise UserError.one(
                shown(base.folder), "is not whole", "Remove it and run the same command again."
            )
    return identity


def mounts(stage: Stage, inputs: Inputs, display: Display) -> tuple[Mount, ...]:
    """What the stage may read of the run's inputs; llama.cpp's sources are fetched if it must."""
    places: dict[str, Path | None] = {
        "data": inputs.data,
        "evaluation": inputs.evaluation,
        "base": inputs.base.model,
    }
    if "llama_cpp" in stage.reads:
        places["llama_cpp"] = sources.llama_cpp(display)
    return tuple(Mount(name, place) for name in stage.reads if (place := places[name]) is not None)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError.one(
                shown(folder), "is being worked on by another run", "Wait for it, or stop it."
            ) from None
        yield


def _manifest(recipe: Recipe, inputs: Inputs, keys: dict[str, str], run: RunFolder) -> Manifest:
    path = run.path / names.MANIFEST
    if path.exists():
        return Manifest.model_validate_json(path.read_bytes())
    versions = {**pinned(recipe.lock), **pinned("llama-cpp")}
    manifest = Manifest(
        affineur_version=VERSION,
        key=keys[_NAMING_STAGE.name],
        recipe=recipe,
        base=inputs.identity,
        data={name: inputs.digests[name] for name in _DATA if name in inputs.digests},
        locks={lock_file(lock).name: lock_digest(lock) for lock in (recipe.lock, "llama-cpp")},
        code={stage.name: code_digest(f"trainer.{stage.name}") for stage in STAGES},
        versions={name: versions[name] for name in _VERSIONS_OF},
        machine=_machine(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        stages=[record for stage in STAGES if (record := run.record(stage.name))],
    )
    write_whole(path, manifest.model_dump_json(indent=1) + "\n")
    return manifest


def _machine() -> dict[str, Any]:
    """What a digest may depend on: PyTorch promises nothing across platforms."""
    return {"platform": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
