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

from contract import paths
from contract.atomic_write import atomic_write
from contract.base import BaseIdentity
from contract.errors import UserError
from contract.manifest import Manifest
from contract.recipe import (
    CONVERTER_TYPES,
    QUANTIZER_TYPES,
    ConvertSection,
    ModelfileSection,
    PrepareSection,
    QuantizeSection,
    Recipe,
    TrainSection,
)
from launcher.display import Display
from launcher.pipeline.bases import CachedBase, LocalBase, find_base
from launcher.pipeline.code_digest import code_digest
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.run import has_manifest, model_folder, read_manifest, write_manifest
from launcher.pipeline.runner import Given, RunFolder, Stage, run_job, stage_key
from launcher.project import CACHE, ROOT, VERSION, lock_file, shown
from launcher.runtime import llama_cpp_sources
from launcher.runtime.dependency_locks import lock_digest, pinned
from launcher.runtime.engine import Engine, Job, Mount
from launcher.runtime.llama_cpp_tools import tools, tools_digest
from launcher.runtime.shared_cache import exclusively

PREPARE = Stage(
    "prepare", PrepareSection, (), ("data", "evaluation", "base"), (str(paths.PREPARED),)
)
TRAIN = Stage(
    "train",
    TrainSection,
    ("prepare",),
    ("base",),
    (str(paths.ADAPTER), str(paths.METRICS), str(paths.HELD_OUT_SCORES)),
    uses_gpu=True,
)
MERGE = Stage("merge", None, ("train",), ("base",), (str(paths.MERGED),))
CONVERT = Stage(
    "convert",
    ConvertSection,
    ("prepare", "train", "merge"),
    ("base", "llama_cpp"),
    (*(f"{paths.GGUF}/*-{kind}.gguf" for kind in CONVERTER_TYPES), str(paths.READ_BACK)),
)
QUANTIZE = Stage(
    "quantize",
    QuantizeSection,
    ("prepare", "merge", "convert"),
    ("tools",),
    (*(f"{paths.GGUF}/*-{kind}.gguf" for kind in QUANTIZER_TYPES), str(paths.IMATRIX)),
)
MODELFILE = Stage(
    "modelfile", ModelfileSection, ("convert",), (), (str(paths.MODELFILE), str(paths.SERVING))
)
REFERENCE = Stage(
    "reference",
    ConvertSection,
    ("prepare", "train", "merge", "convert", "quantize"),
    (),
    (str(paths.REFERENCE),),
)
STAGES = (PREPARE, TRAIN, MERGE, CONVERT, QUANTIZE, MODELFILE, REFERENCE)
# The run's folder is named after this stage's key: what comes after it is remade in place.
_NAMING_STAGE = TRAIN

# What the exporter's image brings along; a stage that reads it runs there, where it is built.
_EXPORTER = {"llama_cpp", "tools"}
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
    with alone(folder):
        atomic_write(folder / paths.RECIPE, recipe.model_dump_json(indent=1) + "\n")
        atomic_write(folder / paths.BASE_RECORD, inputs.identity.model_dump_json(indent=1) + "\n")
        for stage in stages(recipe):
            if run.is_current(stage, keys[stage.name]):
                display.up_to_date(stage.name)
                continue
            labels = {"run": keys[_NAMING_STAGE.name], "profile": recipe.profile}
            given = Given(
                recipe.lock,
                recipe.device,
                mounts(stage, inputs, display),
                exporter=bool(recipe.quantizer_types()) and not _EXPORTER.isdisjoint(stage.reads),
                labels=labels,
            )
            run.run(stage, keys[stage.name], given, engine, display)
            ran.append(stage.name)
        manifest = _manifest(recipe, inputs, keys, run)
    digests.save()
    return Outcome(folder, manifest, tuple(ran))


def plan(recipe: Recipe) -> list[tuple[str, str]]:
    """Each stage and what a run would do with it, without doing anything."""
    digests = FileDigests()
    base = find_base(recipe.model_to_fine_tune, recipe.model_revision, recipe.lock)
    identity = base.identity(digests)
    if identity is None:
        return [
            ("base", "to be fetched or made"),
            *((stage.name, "to run") for stage in stages(recipe)),
        ]
    inputs = _inputs(recipe, base, identity, digests)
    keys = stage_keys(recipe, inputs)
    run = RunFolder(run_folder(recipe, keys), digests)
    lines = [("base", f"{identity.source} {identity.digest[:12]}")]
    stale = False
    for stage in stages(recipe):
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
        _cached(base, recipe, engine, display, digests)
        if isinstance(base, CachedBase)
        else base.identity(digests)
    )
    return _inputs(recipe, base, identity, digests)


def stages(recipe: Recipe) -> list[Stage]:
    """The stages of this recipe's run, in their order: `quantize` only where something asks."""
    return [stage for stage in STAGES if stage != QUANTIZE or recipe.quantizer_types()]


def stage_keys(recipe: Recipe, inputs: Inputs) -> dict[str, str]:
    """Every stage's key, by its name."""
    keys: dict[str, str] = {}
    lock = lock_digest(recipe.lock)
    for stage in stages(recipe):
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
        "tools": tools_digest(),
    }
    if evaluation:
        found["evaluation"] = digests.of(evaluation)
    return Inputs(data, evaluation, base, identity, found)


def _cached(
    base: CachedBase, recipe: Recipe, engine: Engine, display: Display, digests: FileDigests
) -> BaseIdentity:
    identity = base.identity(digests)
    if identity is None:
        # Another launcher that wants the same base waits here, and finds it.
        with exclusively(base.folder):
            base.take()
            if (identity := base.identity(digests)) is None:
                identity = _made(base, recipe, engine, display, digests)
                base.share()
    return identity


def _made(
    base: CachedBase, recipe: Recipe, engine: Engine, display: Display, digests: FileDigests
) -> BaseIdentity:
    atomic_write(base.folder / paths.BASE_REQUEST, base.request.model_dump_json() + "\n")
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
    identity = base.identity(digests)
    if identity is None:
        raise UserError.one(
            shown(base.folder), "is not whole", "Remove it and run the same command again."
        )
    return identity


def mounts(stage: Stage, inputs: Inputs, display: Display) -> tuple[Mount, ...]:
    """What the stage may read of the run's inputs; llama.cpp's parts are made if need be."""
    places: dict[str, Path | None] = {
        "data": inputs.data,
        "evaluation": inputs.evaluation,
        "base": inputs.base.model,
    }
    if "llama_cpp" in stage.reads:
        places["llama_cpp"] = llama_cpp_sources.llama_cpp(display)
    if "tools" in stage.reads:
        places["tools"] = tools(display)
    return tuple(Mount(name, place) for name in stage.reads if (place := places[name]) is not None)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder for as long as the block lasts, against other launchers.

    Raises:
        UserError: another one holds it.
    """
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
    if has_manifest(run.path):
        return read_manifest(run.path)
    versions = {**pinned(recipe.lock), **pinned("llama-cpp")}
    manifest = Manifest(
        affineur_version=VERSION,
        key=keys[_NAMING_STAGE.name],
        recipe=recipe,
        base=inputs.identity,
        data={name: inputs.digests[name] for name in _DATA if name in inputs.digests},
        locks={lock_file(lock).name: lock_digest(lock) for lock in (recipe.lock, "llama-cpp")},
        code={stage.name: code_digest(f"trainer.{stage.name}") for stage in stages(recipe)},
        versions={name: versions[name] for name in _VERSIONS_OF},
        machine=_machine(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        stages=[record for stage in stages(recipe) if (record := run.record(stage.name))],
    )
    write_manifest(run.path, manifest)
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
