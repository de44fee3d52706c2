"""Prove that what a server serves is what was trained; line by line, each with what it found.

Compared with `reference.json`, which was worked out where the model was made:
what the server reports, the prompts that it makes, greedy answers of the f16 file, quantized files
and the merge, and ends of answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from contract import paths
from contract.chat_format import ChatFormat
from contract.errors import AffineurError, UserError
from contract.events import Progress
from contract.manifest import Check, Verification
from contract.recipe import VerifySection
from contract.reference import Agreement, Reference
from launcher.display import Display, styled
from launcher.pipeline.finished_run import Run
from launcher.serving.model_import import unquantized
from launcher.serving.ollama_names import full_name
from launcher.serving.ollama_server import GREEDY, OllamaServer
from launcher.serving.rendered_prompts import PromptReader
from launcher.serving.server_diff import differences
from launcher.serving.temporary_models import temporary_alias

Report = Callable[[str, int, int], None]


class NotTheTrainedModel(AffineurError):
    """A served model that failed; the table says in what."""

    def __init__(self, model: str, checks: list[Check]) -> None:
        self.checks = checks
        failed = ", ".join(check.name for check in checks if not check.passed)
        super().__init__(f"{model} is not the model that was trained ({failed})")

    def text(self) -> str:
        """The lines that failed, and what stands now."""
        lines = [f"  {'✓' if c.passed else '✗'} {c.name}: {c.found}" for c in self.checks]
        kept = "The model previously served under that name is still in place."
        return "\n".join([*lines, "", f"{super().text()}. {kept}"])


def prove_named(
    run: Run, server: OllamaServer, name: str, *, display: Display, how: str = ""
) -> list[Check]:
    """Prove the model that the name stands for now, whatever the name is given to meanwhile.

    Args:
        how: flags with which it would be imported into this server.

    Raises:
        NotTheTrainedModel: with the table.
        UserError: there is no such model; else see `verify`.
    """
    digest = server.digest(name)
    if digest is None:
        raise UserError.one(
            "Ollama",
            f"{server.public_address} has no model {name}",
            f"./invoke import --model {name}{how}",
        )
    with temporary_alias(server, full_name(name), digest, "verified") as alias:
        return prove(run, server, alias, name=name, display=display)


def prove(
    run: Run, server: OllamaServer, served: str, *, name: str = "", display: Display
) -> list[Check]:
    """Verify a served model, write the table down, and raise where a line failed.

    Args:
        served: a name that nobody gives to another model meanwhile.
        name: what people call it, where that is another name.

    Raises:
        NotTheTrainedModel: with the table.
        UserError: see `verify`.
    """
    name = name or served
    with (
        unquantized(run, served, server, display=display) as beside,
        display.working("verify", f"{name} at {server.public_address}") as line,
    ):

        def on_progress(doing: str, done: int, total: int) -> None:
            line.on_event(Progress(doing=doing, done=done, total=total, unit="prompts"))

        checks = verify(run, server, served, exact=beside, on_progress=on_progress)
        passed = all(check.passed for check in checks)
        run.record_verification(
            Verification(
                model=name,
                model_digest=run.model_digest,
                server=server.version,
                address=server.public_address,
                image=server.image,
                passed=passed,
                checks=checks,
            )
        )
        if not passed:
            raise NotTheTrainedModel(name, checks)
    return checks


def verify(
    run: Run, server: OllamaServer, served: str, *, exact: str, on_progress: Report
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
    proof = _Proof(run, server, on_progress)
    return [
        proof.as_sent(served),
        proof.prompts(served),
        *_rendering(run),
        proof.same_answers(exact),
        *_agreements(run.reference, run.recipe),
        proof.ends(served),
    ]


def show(checks: list[Check], console: Console) -> None:
    """Print the table."""
    table = Table.grid(padding=(0, 2))
    for check in checks:
        mark = "[green]✓[/]" if check.passed else "[red]✗[/]"
        table.add_row(styled(mark), Text(check.name), Text(check.found))
    console.print(table)


@dataclass(frozen=True)
class _Proof:
    """The lines for which a server is asked, of one run's reference."""

    run: Run
    server: OllamaServer
    on_progress: Report

    def as_sent(self, model: str) -> Check:
        """Whether the server reports of the model what was sent to it."""
        found = differences(self.server, model, self.run.files)
        return Check(
            name="server report",
            passed=not found,
            found="; ".join(found) or "files, template, system prompt and parameters as sent",
        )

    def prompts(self, model: str) -> Check:
        """Whether its prompts are those that were trained on, as far as it tells what they are."""
        questions = self.run.reference.questions
        written = PromptReader(self.server, model)
        # It says whether the data have turns of the special kinds.
        chat_format = ChatFormat.read(self.run.folder / paths.CHAT_FORMAT)
        differing: list[str] = []
        unsaid: list[str] = []
        for number, question in enumerate(questions):
            self.on_progress("comparing prompts", number, len(questions))
            difference = written.difference(question)
            if not difference:
                continue
            if question.special is not None and chat_format.needs_template_engine is None:
                unsaid.append(question.special)
            else:
                differing.append(f"prompt {number + 1}: {difference}")
        equal = len(questions) - len(differing) - len(unsaid)
        found = f"{equal} of {len(questions)} as in training, {written.how()}"
        if unsaid:
            kinds = ", ".join(dict.fromkeys(unsaid))
            found += f"; what it cannot write, and the data do not have: {kinds}"
        if differing:
            found += f" ({differing[0]})"
        return Check(name="prompts", passed=not differing, found=found)

    def same_answers(self, model: str) -> Check:
        """Whether it answers as the merged model does, up to near ties."""
        asked = self.run.reference.questions
        differing, undecided = [], 0
        for number, question in enumerate(asked):
            self.on_progress("asking the f16 file", number, len(asked))
            answer = self.server.generate(
                model=model,
                prompt=question.prompt,
                raw=True,
                options={**GREEDY, "num_predict": self.run.reference.answer_tokens},
            )
            said = answer["response"]
            if said == question.answer:
                continue
            if question.decided is not None and said.startswith(question.decided):
                undecided += 1
            else:
                differing.append(
                    f"prompt {number + 1}: {_short(said)} instead of {_short(question.answer)}"
                )
        right = "match the merged model"
        if undecided:
            right += f", {undecided} of them up to a near tie"
        return _of_differences("greedy answers (f16)", differing, asked=len(asked), right=right)

    def ends(self, model: str) -> Check:
        """Whether its answers to held-out questions end by a stop."""
        # The others try the template with questions that no answer was learned for.
        asked = [question for question in self.run.reference.questions if question.held_out]
        endless = []
        for number, question in enumerate(asked):
            self.on_progress("checking stop tokens", number, len(asked))
            answer = self.server.chat(model=model, messages=question.messages, options=GREEDY)
            if answer.get("done_reason") != "stop":
                endless.append(
                    f"prompt {number + 1}: {answer.get('done_reason')} after "
                    f"{answer.get('eval_count')} tokens"
                )
        within = f"answers stop within {self.run.recipe.num_predict} tokens"
        return _of_differences("stop tokens", endless, asked=len(asked), right=within)


def _rendering(run: Run) -> list[Check]:
    """How llama.cpp writes the prompts: what newer servers use, and llama-server by itself."""
    found = run.reference.rendering
    if found is None:
        return []
    strict = run.serving.template is None
    wrong = [*found.differing, *(found.special if strict else [])]
    said = f"{found.asked - len(found.differing)} of {found.asked} as in training"
    said += ", letter for letter"
    if found.special:
        said += f"; not for {', '.join(found.special)}"
    if wrong:
        said += f" ({wrong[0]})"
    return [Check(name="prompts by llama.cpp", passed=not wrong, found=said)]


def _agreements(reference: Reference, bounds: VerifySection) -> list[Check]:
    return [
        _agreement("merged vs trained", reference.merge, max_mean_kl=bounds.max_merge_kl),
        *(
            _agreement(
                f"{kind} vs merged",
                found,
                max_mean_kl=bounds.max_mean_kl,
                min_same_top=bounds.min_same_top,
            )
            for kind, found in reference.agreements.items()
        ),
    ]


def _agreement(
    name: str, found: Agreement, *, max_mean_kl: float, min_same_top: float | None = None
) -> Check:
    least = f" (min {min_same_top:.1%})" if min_same_top is not None else ""
    return Check(
        name=name,
        passed=found.mean_kl <= max_mean_kl and found.same_top >= (min_same_top or 0),
        found=f"mean KL {found.mean_kl:.2g} nats per token (max {max_mean_kl:g}), "
        f"same top token {found.same_top:.1%}{least}, {found.tokens} tokens",
    )


def _of_differences(name: str, differing: list[str], *, asked: int, right: str) -> Check:
    found = f"{asked - len(differing)} of {asked} {right}"
    if differing:
        found += f" ({differing[0]})"
    return Check(name=name, passed=not differing, found=found)


def _short(text: str) -> str:
    flat = repr(text)
    return flat if len(flat) <= 40 else flat[:37] + "..."
