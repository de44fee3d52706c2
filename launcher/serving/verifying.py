"""Prove that what a server serves is what was trained; line by line, each with what it found.

Compared with `reference.json`, which was worked out where the model was made:
tokens of prompts, greedy answers of the unrounded file, rounded files against it, ends of answers,
and that the server reports what was sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from launcher.display import Display
from launcher.serving.importing import unrounded
from launcher.serving.server import OllamaServer
from trainer.contract import places as names
from trainer.contract.errors import UserError
from trainer.contract.events import Progress
from trainer.contract.recipe import Recipe
from trainer.contract.reference import Question, Reference
from trainer.contract.serving import Serving
from trainer.contract.whole_file import write_whole

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    passed: bool
    found: str


class NotTheTrainedModel(Exception):
    """A served model that failed; the table says in what."""

    def __init__(self, model: str, checks: list[Check]) -> None:
        self.checks = checks
        failed = ", ".join(check.name for check in checks if not check.passed)
        super().__init__(f"{model} is not the model that was trained ({failed})")


@dataclass(frozen=True)
class Bounds:
    """From the recipe: how far a rounded file may be from the unrounded one."""

    max_mean_kl: float
    min_same_top: float


def prove(run: Path, server: OllamaServer, served: str, display: Display) -> list[Check]:
    """Verify a served model, write the table down, and raise where a line failed.

    Raises:
        NotTheTrainedModel: with the table.
        UserError: see `verify`.
    """
    with (
        unrounded(run, served, server, display) as beside,
        display.working("verify", f"{served} at {server.address}") as line,
    ):

        def on_progress(doing: str, done: int, total: int) -> None:
            line.on_event(Progress(doing=doing, done=done, total=total, unit="prompts"))

        checks = verify(run, server, served, beside, on_progress)
        record(run, server, served, checks)
        if not all(check.passed for check in checks):
            raise NotTheTrainedModel(served, checks)
    return checks


def verify(
    run: Path, server: OllamaServer, served: str, exact: str, on_progress: Report
) -> list[Check]:
    """Ask the served model everything that the reference holds, and compare.

    Args:
        run: the run that the model is of.
        served: the model's name, as the server has it.
        exact: the name of a model of the run's f16 file on that server; may be `served`.
        on_progress: what is done, how many questions of how many.

    Raises:
        UserError: the server went away, or the run has no reference.
    """
    path = run / names.REFERENCE
    if not path.exists():
        raise UserError.one(str(path), "is not there", "Run ./invoke train again.")
    reference = Reference.read(path)
    recipe = Recipe.read(run / names.RECIPE)
    serving = Serving.read(run / names.SERVING)
    bounds = Bounds(recipe.max_mean_kl, recipe.min_same_top)
    return [
        _prompt_tokens(server, served, reference, serving, on_progress),
        _same_answers(server, exact, reference, on_progress),
        *_agreements(reference, bounds),
        _ends(server, served, reference, recipe.num_predict, on_progress),
    ]


def record(run: Path, server: OllamaServer, model: str, checks: list[Check]) -> None:
    """Write `verification.json` beside the manifest."""
    written = {
        "model": model,
        "server": server.version,
        "passed": all(check.passed for check in checks),
        "checks": [asdict(check) for check in checks],
    }
    text = json.dumps(written, ensure_ascii=False, indent=1) + "\n"
    write_whole(run / names.VERIFICATION, text)


def show(checks: list[Check], console: Console) -> None:
    """Print the table."""
    table = Table.grid(padding=(0, 2))
    for check in checks:
        mark = "[green]✓[/]" if check.passed else "[red]✗[/]"
        table.add_row(mark, check.name, escape(check.found))
    console.print(table)


def _prompt_tokens(
    server: OllamaServer,
    model: str,
    reference: Reference,
    serving: Serving,
    on_progress: Report,
) -> Check:
    differing = []
    for number, question in enumerate(reference.questions):
        on_progress("counting prompt tokens", number, len(reference.questions))
        answer = server.chat(
            model=model, messages=question.messages, options={**_GREEDY, "num_predict": 1}
        )
        counted = answer.get("prompt_eval_count")
        # A system prompt of the model's own stands in front where the conversation has none.
        if counted != question.prompt_tokens and not _gets_a_system_prompt(question, serving):
            differing.append(f"prompt {number + 1}: {counted} for {question.prompt_tokens}")
    return _of_differences("prompt tokens", differing, len(reference.questions), "as trained")


def _gets_a_system_prompt(question: Question, serving: Serving) -> bool:
    return bool(serving.system) and question.messages[0]["role"] != "system"


def _same_answers(
    server: OllamaServer, model: str, reference: Reference, on_progress: Report
) -> Check:
    differing = []
    for number, question in enumerate(reference.questions):
        on_progress("asking the unrounded file", number, len(reference.questions))
        answer = server.generate(
            model=model,
            prompt=question.prompt,
            raw=True,
            options={**_GREEDY, "num_predict": reference.answer_tokens},
        )
        if answer["response"] != question.answer:
            differing.append(
                f"prompt {number + 1}: {_short(answer['response'])} for {_short(question.answer)}"
            )
    return _of_differences(
        "greedy answers, f16", differing, len(reference.questions), "as the merged model's"
    )


def _agreements(reference: Reference, bounds: Bounds) -> list[Check]:
    return [
        Check(
            f"{kind} beside f16",
            found.mean_kl <= bounds.max_mean_kl and found.same_top >= bounds.min_same_top,
            f"mean KL {found.mean_kl:.2g} nats a token (at most {bounds.max_mean_kl:g}), same top "
            f"token {found.same_top:.1%} (at least {bounds.min_same_top:.1%}), "
            f"{found.tokens} tokens",
        )
        for kind, found in reference.agreements.items()
    ]


def _ends(
    server: OllamaServer, model: str, reference: Reference, bound: int, on_progress: Report
) -> Check:
    # Only where the merged model itself comes to an end: the others try the template.
    asked = [question for question in reference.questions if question.held_out]
    endless = []
    for number, question in enumerate(asked):
        on_progress("waiting for ends", number, len(asked))
        answer = server.chat(model=model, messages=question.messages, options=_GREEDY)
        if answer.get("done_reason") != "stop":
            endless.append(
                f"prompt {number + 1}: {answer.get('done_reason')} after "
                f"{answer.get('eval_count')} tokens"
            )
    return _of_differences("answers that end", endless, len(asked), f"by a stop, within {bound}")


# All else is as the model is served: a penalty that the server adds by itself must be seen. The
# seed decides nothing at temperature 0, and is sent for servers that draw all the same.
_GREEDY: dict[str, Any] = {"temperature": 0, "seed": 0}


def _of_differences(name: str, differing: list[str], asked: int, right: str) -> Check:
    found = f"{asked - len(differing)} of {asked} {right}"
    if differing:
        found += f" ({differing[0]})"
    return Check(name, not differing, found)


def _short(text: str) -> str:
    flat = repr(text)
    return flat if len(flat) <= 40 else flat[:37] + "..."
