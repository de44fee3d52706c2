"""What the models are asked: the stage `questions`, brought up to date below a run's folder."""

from __future__ import annotations

from pathlib import Path

from contract import paths
from contract.digest import digest_of_value, files_below
from contract.evaluation import Questions, QuestionsRequest
from launcher.display import Display
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.finished_run import Run
from launcher.pipeline.inputs import file_input
from launcher.pipeline.runner import StageContext, StageFolder, StageRunner
from launcher.pipeline.stages import QUESTIONS, Input, key_parts
from launcher.runtime.dependency_locks import lock_digest
from launcher.runtime.engine import Engine
from launcher.runtime.exclusive_lock import exclusive_lock


def make_questions(
    folder: Path,
    request: QuestionsRequest,
    *,
    data: Path,
    skills: Path | None,
    run: Run | None,
    lock: str,
    engine: Engine,
    display: Display,
) -> Questions:
    """Read the sets, where they changed since the last time.

    Args:
        folder: the evaluation's own.
        run: whose training data the rows are compared with, or None where that is not known.
        lock: of the environment that they are read in.

    Raises:
        UserError: every row that cannot be read, or that was trained on.
    """
    digests = FileDigests()
    inputs = {
        "data": file_input(data, digests),
        "request": Input(digest_of_value(request.model_dump())),
    }
    if skills is not None:
        files = {path: digests.of(path) for path in files_below(skills)}
        named = {path.name: digest for path, digest in files.items()}
        inputs["skills"] = Input(digest_of_value(named), lambda: skills, digests.stamps(files))
    trained = None
    if run is not None:
        inputs["trained"] = run_as_input(run)
        trained = StageFolder(run.folder, digests)
    key = digest_of_value(
        key_parts(
            QUESTIONS,
            recipe=None,
            lock_digest=lock_digest(lock),
            inputs=inputs,
            upstream_keys=run.keys if run is not None else {},
        )
    )
    runner = StageRunner(
        StageFolder(folder, digests, trained),
        StageContext(lock=lock, inputs=inputs),
        engine=engine,
        display=display,
    )
    with exclusive_lock(folder):
        request.write(folder / paths.QUESTIONS_REQUEST)
        runner.bring_up_to_date(QUESTIONS, key)
    digests.save()
    return Questions.read(folder / paths.QUESTIONS)


def run_as_input(run: Run) -> Input:
    """A finished run as what a stage reads: its folder."""
    return Input(run.manifest.key, lambda: run.folder)
