"""The base of a run as a GGUF, to compare with: the stage `baseline`, below the run's folder."""

from __future__ import annotations

from pathlib import Path

from contract import paths
from contract.digest import digest_of_value
from contract.errors import UserError
from launcher.display import Display
from launcher.evaluate.questions import run_as_input
from launcher.pipeline.bases import find_base, find_recorded
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.finished_run import Run
from launcher.pipeline.inputs import base_input, llama_cpp_inputs
from launcher.pipeline.model_files import ModelFiles
from launcher.pipeline.runner import StageContext, StageFolder, StageRunner
from launcher.pipeline.stages import BASELINE, key_parts
from launcher.project import shown
from launcher.runtime.dependency_locks import lock_digest
from launcher.runtime.engine import Engine
from launcher.runtime.exclusive_lock import exclusive_lock


def make_baseline(run: Run, engine: Engine, display: Display) -> ModelFiles:
    """Convert the run's base, where that was not done yet; it is served as the tuned model is.

    Raises:
        UserError: the base is not there any more, or is another one, or cannot be converted.
    """
    recipe = run.recipe
    kind = recipe.quantizations[0]
    quantized = kind in recipe.quantizer_types()
    digests = FileDigests()
    base = _base_of(run, digests)
    llama_cpp = llama_cpp_inputs(display)
    if not quantized:
        del llama_cpp["tools"]
    inputs = {
        "trained": run_as_input(run),
        "base": base_input(run.manifest.base, base, digests),
        **llama_cpp,
    }
    folder = run.evaluation_folder
    key = digest_of_value(
        key_parts(
            BASELINE,
            recipe=recipe,
            lock_digest=lock_digest(recipe.lock),
            inputs=inputs,
            upstream_keys=run.keys,
        )
    )
    runner = StageRunner(
        StageFolder(folder, digests, StageFolder(run.folder, digests)),
        StageContext(lock=recipe.lock, inputs=inputs, exporter=quantized),
        engine=engine,
        display=display,
    )
    with exclusive_lock(folder):
        runner.bring_up_to_date(BASELINE, key)
    digests.save()
    gguf = paths.gguf_name(kind).as_posix()
    serving = run.serving.model_copy(update={"gguf": gguf, "adapter": None})
    blobs = {gguf: f"sha256:{digests.of(folder / gguf)}"}
    return ModelFiles(f"base of {recipe.output_model_name}", folder, serving, blobs)


def _base_of(run: Run, digests: FileDigests) -> Path:
    recipe, trained_on = run.recipe, run.manifest.base
    if trained_on.gguf is not None:
        # Its file may be gone by now, and a server's model of that name be another one.
        recorded = find_recorded(trained_on)
        if recorded is None or recorded.identity(digests) is None:
            raise UserError.one(
                f"the base {trained_on.source}", "is no longer in the cache", _TRAIN_AGAIN
            )
        return recorded.model
    base = find_base(recipe.model_to_fine_tune, recipe.model_revision, recipe.lock)
    identity = base.identity(digests)
    if identity is None or identity.digest != trained_on.digest:
        what = "no longer exists" if identity is None else "is not the one that was trained on"
        raise UserError.one(shown(base.model), f"the base {what}", _TRAIN_AGAIN)
    return base.model


_TRAIN_AGAIN = "Run ./invoke train again, or use --base NAME."
