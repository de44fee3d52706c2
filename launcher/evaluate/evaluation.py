"""The story of an evaluation: questions, who is asked, answers, results.

What is judged is what is served: the rounded model behind its template and stops, on the server
that applications ask, beside its base in the same form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from contract import paths
from contract.errors import UserError, unknown_name
from contract.evaluation import Item, QuestionsRequest
from contract.events import Progress
from contract.manifest import Manifest
from contract.metrics import METRICS
from launcher.display import Display
from launcher.evaluate.evaluated_models import (
    EvaluatedModel,
    base_from_file,
    base_on_server,
    from_file,
    on_server,
)
from launcher.evaluate.record import Evaluation
from launcher.evaluate.response_cache import ResponseCache
from launcher.evaluate.scoring import examples, results
from launcher.evaluate.stages import make_baseline, make_questions
from launcher.pipeline.run import model_folder, read_manifest
from launcher.pipeline.training import find_dataset
from launcher.project import ROOT, shown
from launcher.runtime.engine import Engine
from launcher.serving.chat_model import Answer
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.server_choice import Ollama

SETS = ROOT / "data" / "evaluation"
SKILLS = SETS / "skills"
# Of a model that was not made here: nothing says how it was trained.
_LOCK, _BOUND_TOKENS, _MAX_SKILL_LOSS = "rtx", 512, 0.05
_MOST_PARALLEL = 64


@dataclass(frozen=True)
class EvaluationRequest:
    """What a person asks for; what is empty is decided by the model's run.

    `data` is a file or a name in `data/evaluation/`, `skills` a folder or `none`.
    """

    model: str
    base: str = ""
    data: str = ""
    skills: str = ""
    metric: str = ""
    parallel: int = 4
    drop_leaked: bool = False


def evaluate(
    request: EvaluationRequest,
    run: Path | None,
    ollama: Ollama | None,
    engine: Engine,
    display: Display,
) -> tuple[Path, Evaluation]:
    """Ask the model and its base every question, score the answers, and write it all down.

    Args:
        run: the model's run, or None where it was not made here.
        ollama: the server that serves it, or None to read the run's file with llama-server.

    Returns:
        The folder that holds `evaluation.json`, and what stands in it.

    Raises:
        UserError: no such model, file or metric, bad or leaked rows, a server that went away.
    """
    _check_metric(request.metric)
    _check_parallel(request.parallel)
    manifest = read_manifest(run) if run is not None else None
    data, columns = _task_file(request.data, run, manifest)
    skills = _skills(request.skills)
    with _running(ollama) as server:
        ours = _ours(request, run, server, display)
        home = run or model_folder(request.model) / f"served-{ours.subject.digest[:12]}"
        folder = home / paths.EVALUATION_FOLDER
        recipe = manifest.recipe if manifest is not None else None
        questions = make_questions(
            folder,
            QuestionsRequest(
                task=data.stem,
                metric=request.metric or (recipe.metric if recipe is not None else None),
                columns=columns,
                system_prompt=recipe.system_prompt if recipe is not None else None,
                drop_leaked=request.drop_leaked,
            ),
            data,
            skills,
            run,
            recipe.lock if recipe is not None else _LOCK,
            engine,
            display,
        )
        if run is None:
            display.note("not made here: whether these rows were trained on is not known")
        base = _base(request, run, manifest, server, folder, engine, display)
        max_new_tokens = recipe.num_predict if recipe is not None else _BOUND_TOKENS
        items = questions.items
        answers = [
            _answers(asked, items, folder, max_new_tokens, request.parallel, display)
            for asked in ([ours, base] if base is not None else [ours])
        ]
    base_answers = answers[1] if base is not None else None
    max_skill_loss = recipe.max_skill_loss if recipe is not None else _MAX_SKILL_LOSS
    found = Evaluation(
        model=ours.subject,
        base=base.subject if base is not None else None,
        sets=results(items, ours=answers[0], base=base_answers, max_skill_loss=max_skill_loss),
        dropped=questions.dropped,
        examples=examples(items, answers[0], base_answers),
        max_new_tokens=max_new_tokens,
        max_skill_loss=max_skill_loss,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    found.write(home)
    return home, found


@contextmanager
def _running(ollama: Ollama | None) -> Iterator[OllamaServer | None]:
    if ollama is None:
        yield None
    else:
        with ollama.running() as server:
            yield server


def _ours(
    request: EvaluationRequest, run: Path | None, server: OllamaServer | None, display: Display
) -> EvaluatedModel:
    if server is not None:
        return on_server(server, request.model, run)
    if run is None:
        raise UserError.one(
            "--model",
            f"{request.model} was not made here, and without a server there is no file of it",
            "Start the server that has it (ollama serve), or set OLLAMA_HOST.",
        )
    return from_file(run, request.model, request.parallel, display)


def _base(
    request: EvaluationRequest,
    run: Path | None,
    manifest: Manifest | None,
    server: OllamaServer | None,
    folder: Path,
    engine: Engine,
    display: Display,
) -> EvaluatedModel | None:
    """What the model is compared with: a served model that was named, or the run's own base."""
    if request.base:
        if server is None:
            raise UserError.one(
                "--base",
                f"{request.base} is a served model, and no server is asked",
                "Start Ollama, or leave --base out: the run's own base is taken.",
            )
        return on_server(server, request.base, None)
    if run is None or manifest is None:
        display.note("no --base, and no run that says what it was made from: nothing to compare")
        return None
    baseline = make_baseline(run, manifest, folder, engine, display)
    if server is not None:
        return base_on_server(baseline, server, request.model, display)
    return base_from_file(baseline, request.parallel, display)


def _answers(
    asked: EvaluatedModel,
    items: Sequence[Item],
    folder: Path,
    max_new_tokens: int,
    parallel: int,
    display: Display,
) -> list[Answer]:
    sheet = ResponseCache(
        folder / paths.ANSWERS / asked.file_name, [item.messages for item in items], max_new_tokens
    )
    if not sheet.missing:
        display.up_to_date("answers")
        return sheet.answers
    name = asked.subject.name
    with asked.opening() as model, display.working("answers", f"{name}, {model.by}") as line:

        def on_progress(done: int, total: int) -> None:
            doing = f"asking {name}"
            line.on_event(Progress(doing=doing, done=done, total=total, unit="questions"))

        sheet.ask(model, parallel, on_progress)
    return sheet.answers


def _task_file(
    data: str, run: Path | None, manifest: Manifest | None
) -> tuple[Path, dict[str, str]]:
    """The task's rows, and what their columns are called."""
    if data:
        return _named_set(data) or find_dataset(data, "--data"), {}
    if run is None or manifest is None:
        raise UserError.one(
            "--data", "is needed for a model that was not made here", f"Sets: {shown(SETS)}."
        )
    recipe = manifest.recipe
    if recipe.evaluation_path:
        return find_dataset(recipe.evaluation_path, "evaluation_path"), recipe.columns
    beside = SETS / Path(recipe.dataset_path).name
    if beside.is_file():
        return beside, recipe.columns
    held_out = run / paths.PREPARED_HELD_OUT
    if not held_out.exists() or not held_out.stat().st_size:
        raise UserError.one(
            "--data",
            "the run held no row out, so there is nothing to ask",
            "Give rows that were not trained on: --data FILE.",
        )
    return held_out, {}


def _named_set(name: str) -> Path | None:
    """The file of this name in `data/evaluation/`, whatever its suffix."""
    found = sorted(path for path in SETS.iterdir() if path.is_file() and path.stem == name)
    if len(found) > 1:
        raise UserError.one(
            "--data",
            f"{name} may be {' or '.join(path.name for path in found)} in {shown(SETS)}",
            "Give the file.",
        )
    return found[0] if found else None


def _skills(given: str) -> Path | None:
    if given == "none":
        return None
    folder = Path(given).expanduser().resolve() if given else SKILLS
    if not folder.is_dir() or not any(path.is_file() for path in folder.iterdir()):
        raise UserError.one(
            "--skills",
            f"{shown(folder)} is no folder of evaluation sets",
            f"Leave it out for {shown(SKILLS)}, or take none.",
        )
    return folder


def _check_metric(given: str) -> None:
    if given and given not in METRICS:
        raise UserError([unknown_name(given, METRICS, kind="metric", where="--metric")])


def _check_parallel(parallel: int) -> None:
    if not 1 <= parallel <= _MOST_PARALLEL:
        raise UserError.one(
            "--parallel", f"{parallel} is not from 1 to {_MOST_PARALLEL}", "The default is 4."
        )
