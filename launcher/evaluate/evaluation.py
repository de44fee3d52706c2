"""The story of an evaluation: questions, which models are asked, answers, results.

What is judged is what is served: the quantized model behind its template and stops, on the server
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
from contract.evaluation import Item, Questions, QuestionsRequest
from contract.events import Progress
from contract.metrics import METRICS
from launcher.display import Display
from launcher.evaluate.answer_bounds import max_new_tokens
from launcher.evaluate.baseline import make_baseline
from launcher.evaluate.evaluated_models import (
    EvaluatedModel,
    base_on_server,
    from_file,
    on_server,
    run_reasons,
    served_reasons,
)
from launcher.evaluate.questions import make_questions
from launcher.evaluate.record import ATTEMPT, Evaluation, EvaluationAttempt
from launcher.evaluate.response_cache import ResponseCache
from launcher.evaluate.sampling import sample
from launcher.evaluate.scoring import examples, results
from launcher.pipeline.finished_run import SERVED, Run, model_folder
from launcher.pipeline.inputs import find_dataset
from launcher.project import ROOT, shown, user_path
from launcher.runtime.engine import Engine
from launcher.serving.chat_model import Answer
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.server_choice import Ollama

SETS = ROOT / "data" / "evaluation"
SKILLS = SETS / "skills"
# Of a model that was not made here: nothing says how it was trained.
_LOCK, _MAX_NEW_TOKENS, _MAX_SKILL_LOSS = "rtx", 512, 0.08
_MOST_PARALLEL = 64


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What a person asks for; what is empty is decided by the model's run.

    `data` is a file or a name in `data/evaluation/`, `skills` a folder or `none`. `limit` is the
    most rows of each set, as a sample.
    """

    model: str
    base: str = ""
    data: str = ""
    skills: str = ""
    metric: str = ""
    parallel: int = 4
    limit: str = ""
    drop_leaked: bool = False


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """One evaluation: what is asked for, of which run, and where it is done.

    Attributes:
        run: the model's run, or None where it was not made here.
        ollama: the server that has it, or None to load the run's file by llama-server.
        engine: where rows are read and the base is converted.
    """

    request: EvaluationRequest
    run: Run | None
    ollama: Ollama | None
    engine: Engine
    display: Display

    def evaluate(self) -> tuple[Path, Evaluation]:
        """Ask the model and its base every question, score the answers, and write it all down.

        Returns:
            The folder that holds `evaluation.json`, and what it says.

        Raises:
            UserError: no such model, file or metric, bad or leaked rows, a server that went away.
        """
        request, run = self.request, self.run
        _check_metric(request.metric)
        limit = _limit(request.limit)
        data, columns = _task_file(request.data, run)
        skills = _skills(request.skills)
        with _running(self.ollama) as server:
            model = self._model(server)
            home = run.folder if run is not None else _home_of_unknown(request.model, model)
            folder = home / paths.EVALUATION_FOLDER
            attempt = EvaluationAttempt(model=model.identity, started=_now())
            attempt.write(home / ATTEMPT)
            questions = self._questions(folder, data=data, columns=columns, skills=skills)
            items = questions.items
            if limit is not None:
                items = sample(items, limit)
            base = self._base(server)
            bounds = self._bounds(items, server)
            answers = self._answers(model, items, bounds, folder)
            base_answers = None
            if base is not None:
                base_answers = self._answers(base, items, bounds, folder)
        max_skill_loss = run.recipe.max_skill_loss if run is not None else _MAX_SKILL_LOSS
        found = Evaluation(
            model=model.identity,
            base=base.identity if base is not None else None,
            sets=results(
                items,
                bounds=bounds,
                ours=answers,
                base=base_answers,
                max_skill_loss=max_skill_loss,
            ),
            dropped=questions.dropped,
            examples=examples(items, answers, base_answers),
            limit=limit,
            max_new_tokens=self._max_new_tokens,
            max_skill_loss=max_skill_loss,
            created=_now(),
        )
        found.write(home / paths.EVALUATION)
        (home / ATTEMPT).unlink(missing_ok=True)
        return home, found

    @property
    def _max_new_tokens(self) -> int:
        return self.run.recipe.num_predict if self.run is not None else _MAX_NEW_TOKENS

    def _bounds(self, items: Sequence[Item], server: OllamaServer | None) -> list[int]:
        """The most tokens that an answer to each question may have, whoever is asked."""
        served = [] if self.run is not None else [self.request.model]
        served += [self.request.base] if self.request.base else []
        reasons = self.run is not None and run_reasons(self.run)
        if server is not None:
            reasons = reasons or any(served_reasons(server, name) for name in served)
        return [max_new_tokens(item, self._max_new_tokens, reasons=reasons) for item in items]

    def _model(self, server: OllamaServer | None) -> EvaluatedModel:
        name = self.request.model
        if server is not None:
            return on_server(server, name, self.run)
        if self.run is None:
            raise UserError.one(
                "--model",
                f"{name} was not trained here, so without a server there is nothing to load",
                "Start the server that has it (ollama serve), or set OLLAMA_HOST.",
            )
        return from_file(self.run.files, self.request.parallel, self.display)

    def _questions(
        self,
        folder: Path,
        *,
        data: Path,
        columns: dict[str, str],
        skills: Path | None,
    ) -> Questions:
        recipe = self.run.recipe if self.run is not None else None
        request = QuestionsRequest(
            task=data.stem,
            metric=self.request.metric or (recipe.metric if recipe is not None else None),
            columns=columns,
            system_prompt=recipe.system_prompt if recipe is not None else None,
            drop_leaked=self.request.drop_leaked,
        )
        questions = make_questions(
            folder,
            request,
            data=data,
            skills=skills,
            run=self.run,
            lock=recipe.lock if recipe is not None else _LOCK,
            engine=self.engine,
            display=self.display,
        )
        if self.run is None:
            self.display.note("not trained here: cannot tell whether it was trained on these rows")
        return questions

    def _base(self, server: OllamaServer | None) -> EvaluatedModel | None:
        """What the model is compared with: a served model that was named, or the run's base."""
        named = self.request.base
        if named:
            if server is None:
                raise UserError.one(
                    "--base",
                    f"{named} is a served model, but no server is in use",
                    "Start Ollama, or omit --base to compare with the run's own base.",
                )
            return on_server(server, named, None)
        if self.run is None:
            self.display.note("no --base, and no run that names one: nothing to compare with")
            return None
        baseline = make_baseline(self.run, self.engine, self.display)
        if server is not None:
            return base_on_server(baseline, server, self.display)
        return from_file(baseline, self.request.parallel, self.display)

    def _answers(
        self, asked: EvaluatedModel, items: Sequence[Item], bounds: Sequence[int], folder: Path
    ) -> list[Answer]:
        cache = ResponseCache(
            folder / paths.ANSWERS / asked.identity.answers_file,
            [item.messages for item in items],
            bounds,
            [item.tools for item in items],
        )
        if not cache.missing:
            self.display.up_to_date("answers")
            return cache.answers
        name = asked.identity.name
        with (
            asked.start() as model,
            self.display.working("answers", f"{name}, {model.by}") as line,
        ):

            def on_progress(done: int, total: int) -> None:
                doing = f"asking {name}"
                line.on_event(Progress(doing=doing, done=done, total=total, unit="questions"))

            cache.ask(model, self.request.parallel, on_progress)
        return cache.answers


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _home_of_unknown(name: str, model: EvaluatedModel) -> Path:
    """Where the evaluation of a model is kept that was not made here."""
    return model_folder(name) / f"{SERVED}{model.identity.digest[:12]}"


@contextmanager
def _running(ollama: Ollama | None) -> Iterator[OllamaServer | None]:
    if ollama is None:
        yield None
    else:
        with ollama.running() as server:
            yield server


def _task_file(data: str, run: Run | None) -> tuple[Path, dict[str, str]]:
    """The task's rows, and what their columns are called."""
    if data:
        return _named_set(data) or find_dataset(data, "--data"), {}
    if run is None:
        raise UserError.one(
            "--data",
            "is required for a model that was not trained here",
            f"Available sets: {shown(SETS)}.",
        )
    recipe = run.recipe
    if recipe.evaluation_path:
        return find_dataset(recipe.evaluation_path, "evaluation_path"), recipe.columns
    beside = SETS / Path(recipe.dataset_path).name
    if beside.is_file():
        return beside, recipe.columns
    held_out = run.folder / paths.PREPARED_HELD_OUT
    if not held_out.exists() or not held_out.stat().st_size:
        raise UserError.one(
            "--data",
            "the run held out no rows, so there is nothing to evaluate",
            "Use rows that were not trained on: --data FILE.",
        )
    return held_out, {}


def _named_set(name: str) -> Path | None:
    """The file of this name in `data/evaluation/`, whatever its suffix."""
    found = sorted(path for path in SETS.iterdir() if path.is_file() and path.stem == name)
    if len(found) > 1:
        raise UserError.one(
            "--data",
            f"{name} may be {' or '.join(path.name for path in found)} in {shown(SETS)}",
            "Specify the file.",
        )
    return found[0] if found else None


def _skills(given: str) -> Path | None:
    if given == "none":
        return None
    folder = user_path(given, "--skills").resolve() if given else SKILLS
    if not folder.is_dir() or not any(path.is_file() for path in folder.iterdir()):
        raise UserError.one(
            "--skills",
            f"{shown(folder)} is not a folder of evaluation sets",
            f"Omit it to use {shown(SKILLS)}, or use --skills none.",
        )
    return folder


def _check_metric(given: str) -> None:
    if given and given not in METRICS:
        raise UserError([unknown_name(given, METRICS, kind="metric", where="--metric")])


def _limit(given: str) -> int | None:
    if not given:
        return None
    if not (given.isascii() and given.isdecimal()) or int(given) < 1:
        raise UserError.one("--limit", f"{given} is not a number of rows", "Example: --limit 20.")
    return int(given)


def parallel_requests(given: str) -> int:
    """How many questions are asked at once, of the flag's text.

    Raises:
        UserError: it is no number, or one that no server is asked for.
    """
    if not (given.isascii() and given.isdecimal()) or not 1 <= int(given) <= _MOST_PARALLEL:
        raise UserError.one(
            "--parallel",
            f"{given} is not a number between 1 and {_MOST_PARALLEL}",
            "The default is 4.",
        )
    return int(given)
