"""What is made before anybody is asked: the questions, and the base of a run as a GGUF.

Both are stages in a folder of their own below the run's: evaluating leaves the run as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contract import paths
from contract.digest import digest_of_value, files_below
from contract.errors import UserError
from contract.evaluation import Questions, QuestionsRequest
from contract.manifest import Manifest
from contract.serving import Serving
from launcher.display import Display
from launcher.pipeline import training
from launcher.pipeline.bases import find_base
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.runner import Given, RunFolder, Stage, stage_key
from launcher.project import shown
from launcher.runtime import llama_cpp_sources
from launcher.runtime.dependency_locks import lock_digest
from launcher.runtime.engine import Engine, Mount
from launcher.runtime.llama_cpp_tools import tools, tools_digest

QUESTIONS = Stage(
    "questions", None, (), ("data", "skills", "trained", "request"), (str(paths.QUESTIONS),)
)
BASELINE = Stage(
    "baseline",
    None,
    (),
    ("trained", "base", "llama_cpp", "tools"),
    (f"{paths.GGUF}/model-*.gguf",),
)


@dataclass(frozen=True)
class Baseline:
    """The base as it is asked: its file below the folder, and the tuned model's settings."""

    name: str
    folder: Path
    serving: Serving
    blobs: Mapping[str, str]


def make_questions(
    folder: Path,
    request: QuestionsRequest,
    data: Path,
    skills: Path | None,
    run: Path | None,
    lock: str,
    engine: Engine,
    display: Display,
) -> Questions:
    """Read the sets, where they changed since the last time.

    Args:
        folder: the evaluation's own.
        run: whose training data the rows are held against, or None where nobody knows it.
        lock: the environment to read them in.

    Raises:
        UserError: every row that cannot be read, or that was trained on.
    """
    digests = FileDigests()
    mounts = [Mount("data", data)]
    inputs = {"data": digests.of(data), "request": digest_of_value(request.model_dump())}
    if skills is not None:
        mounts.append(Mount("skills", skills))
        inputs["skills"] = digest_of_value(
            {path.name: digests.of(path) for path in files_below(skills)}
        )
    if run is not None:
        mounts.append(Mount("trained", run))
        inputs["trained"] = digests.of(run / paths.PREPARED_TRAIN)
    folder.mkdir(parents=True, exist_ok=True)
    request.write(folder / paths.QUESTIONS_REQUEST)
    given = Given(lock, "cpu", tuple(mounts))
    _bring_up(QUESTIONS, folder, inputs, given, engine, display, digests)
    return Questions.read(folder / paths.QUESTIONS)


def make_baseline(
    run: Path, manifest: Manifest, folder: Path, engine: Engine, display: Display
) -> Baseline:
    """Convert the run's base, where that was not done yet.

    Raises:
        UserError: the base is not there any more, or is another one, or cannot be converted.
    """
    recipe = manifest.recipe
    serving = Serving.read(run / paths.SERVING)
    kind = recipe.quantizations[0]
    digests = FileDigests()
    rounded = kind in recipe.quantizer_types()
    inputs = {
        "trained": digest_of_value([kind, [s.key for s in manifest.stages if s.stage == "merge"]]),
        "base": manifest.base.digest,
        "llama_cpp": lock_digest("llama-cpp"),
        **({"tools": tools_digest()} if rounded else {}),
    }
    mounts = [
        Mount("trained", run),
        Mount("base", _base_of(manifest, digests)),
        Mount("llama_cpp", llama_cpp_sources.llama_cpp(display)),
        *([Mount("tools", tools(display))] if rounded else []),
    ]
    given = Given(recipe.lock, "cpu", tuple(mounts), exporter=rounded)
    _bring_up(BASELINE, folder, inputs, given, engine, display, digests)
    gguf = paths.gguf_name(kind).as_posix()
    blobs = {gguf: f"sha256:{digests.of(folder / gguf)}"}
    alone = serving.model_copy(update={"gguf": gguf, "adapter": None})
    return Baseline(f"base of {recipe.output_model_name}", folder, alone, blobs)


def _base_of(manifest: Manifest, digests: FileDigests) -> Path:
    recipe = manifest.recipe
    base = find_base(recipe.model_to_fine_tune, recipe.model_revision, recipe.lock)
    identity = base.identity(digests)
    if identity is None or identity.digest != manifest.base.digest:
        what = "is not there any more" if identity is None else "is not the one trained on"
        raise UserError.one(
            shown(base.model), f"the base {what}", "Run ./invoke train again, or give --base NAME."
        )
    return base.model


def _bring_up(
    stage: Stage,
    folder: Path,
    inputs: Mapping[str, str],
    given: Given,
    engine: Engine,
    display: Display,
    digests: FileDigests,
) -> None:
    run = RunFolder(folder, digests)
    key = stage_key(stage, {}, lock_digest(given.lock), inputs, {})
    with training.alone(folder):
        if run.is_current(stage, key):
            display.up_to_date(stage.name)
        else:
            run.run(stage, key, given, engine, display)
    digests.save()
