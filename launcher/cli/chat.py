"""`./invoke chat`: a conversation with a served model, and the same one with another beside it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from rich.console import Console
from rich.text import Text

from contract.conversation import Message
from contract.errors import UserError
from launcher.display import Display, duration, print_indented, printable, styled
from launcher.evaluate.baseline import make_baseline
from launcher.evaluate.evaluated_models import base_on_server
from launcher.interruption import CtrlC, ctrl_c_ends_block
from launcher.pipeline.finished_run import Run, canonical_name
from launcher.runtime.engine import Engine
from launcher.serving.chat_model import ChatModel, OllamaModel
from launcher.serving.ollama_server import OllamaServer

OWN_BASE = "base"
_MAX_NEW_TOKENS = 1024
_PROMPT = "> "
HELP = "/reset begins anew, /quit or Ctrl-D ends, Ctrl-C stops an answer"
_ENDS = {
    "length": "the answer was cut off at its longest",
    "repetition_loop": "the server stopped a repetition",
}


@contextmanager
def asked_models(
    name: str, beside: str, server: OllamaServer, choose_engine: Callable[[], Engine]
) -> Iterator[list[ChatModel]]:
    """The models that are asked, on the server for as long as the block lasts.

    Args:
        beside: a served model to ask as well, `base` for what the run was trained from, or nothing.
        choose_engine: for a base that has to be converted first.

    Raises:
        UserError: the server has no such model.
    """
    model = served_model(name, server)
    if not beside:
        yield [model]
    elif beside == OWN_BASE:
        with _own_base(name, server, choose_engine) as base:
            yield [model, base]
    else:
        yield [model, served_model(canonical_name(beside), server)]


def served_model(name: str, server: OllamaServer) -> OllamaModel:
    """A model that the server has.

    Raises:
        UserError: it has none of this name.
    """
    digest = server.digest(name)
    if digest is None:
        known = ", ".join(sorted(printable(model) for model in server.models())) or "none"
        remedy = f"Import it: ./invoke import --model {name}." if Run.exists(name) else ""
        raise UserError.one(
            "Ollama",
            f"{server.public_address} has no model {name}",
            remedy or f"Available: {known}.",
        )
    return OllamaModel(server, name, name, digest)


@contextmanager
def _own_base(
    name: str, server: OllamaServer, choose_engine: Callable[[], Engine]
) -> Iterator[ChatModel]:
    """The base of the model's run: as the server has it, or converted and lent to it."""
    run = Run.find(name, flags=(f"--beside {OWN_BASE}", "--model"))
    named = run.recipe.model_to_fine_tune
    if run.manifest.base.source == f"{named} of Ollama" and server.digest(named) is not None:
        yield served_model(named, server)
        return
    display = Display()
    files = make_baseline(run, choose_engine(), display)
    with base_on_server(files, server, display).start() as base:
        yield base


def longest_answer(name: str) -> int:
    """The most tokens of an answer: as the model's run has it, where it was made here."""
    if Run.exists(name):
        with suppress(UserError):
            return Run.find(name).recipe.num_predict
    return _MAX_NEW_TOKENS


def questions() -> Iterator[str]:
    """What a person types, or each line of what is piped in, until it ends."""
    return _typed() if sys.stdin.isatty() else _piped(sys.stdin.buffer)


def _typed() -> Iterator[str]:
    # For the arrow keys: `input` takes it where it is there.
    with suppress(ImportError):
        import readline  # noqa: F401
    while True:
        try:
            with ctrl_c_ends_block():
                line = input(_PROMPT)
        except CtrlC:
            print()
            continue
        except EOFError:
            print()
            return
        yield line


def _piped(lines: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise UserError.one(
                "standard input", f"line {number} is not UTF-8", "Convert it, such as with iconv."
            ) from None


@dataclass
class _Conversation:
    """One model's: its answers are its own."""

    model: ChatModel
    messages: list[Message] = field(default_factory=list)


class Chat:
    """A conversation with each of several models, about the same questions."""

    def __init__(
        self,
        models: Sequence[ChatModel],
        console: Console,
        *,
        max_new_tokens: int,
        by_person: bool,
    ) -> None:
        """
        Args:
            max_new_tokens: the most that an answer may have.
            by_person: somebody types the questions: Ctrl-C ends an answer alone, and so does a
                server's refusal. Elsewhere either ends the command.
        """
        self._conversations = [_Conversation(model) for model in models]
        self._console = console
        self._max_new_tokens = max_new_tokens
        self._by_person = by_person

    def run(self, asked: Iterator[str]) -> None:
        """Answer each question, until there is none left or `/quit`.

        Raises:
            UserError: the server refuses or is gone, and no person is there to ask again.
        """
        for line in asked:
            question = line.strip()
            if question == "/quit":
                return
            if question == "/reset":
                for one in self._conversations:
                    one.messages.clear()
                self._console.print(Text("The conversation begins anew.", "dim"))
            elif question == "/help":
                self._console.print(Text(HELP, "dim"))
            elif question:
                self._answer(question)

    def _answer(self, question: str) -> None:
        """Every model's answer; what was stopped is in no conversation."""
        if not self._by_person:
            self._ask_all(question)
            return
        before = [len(one.messages) for one in self._conversations]
        try:
            with ctrl_c_ends_block():
                self._ask_all(question)
            return
        except CtrlC:
            self._console.print(Text("Stopped; this question is forgotten.", "dim"))
        except UserError as error:
            self._console.print(Text(error.text(), "red"), soft_wrap=True)
        for one, count in zip(self._conversations, before, strict=True):
            del one.messages[count:]

    def _ask_all(self, question: str) -> None:
        for one in self._conversations:
            name = printable(one.model.name)
            waiting = (
                self._console.status(Text(name, "dim"))
                if self._console.is_terminal
                else nullcontext()
            )
            turn: Message = {"role": "user", "content": question}
            started_s = time.monotonic()
            with waiting:
                answer = one.model.ask([*one.messages, turn], self._max_new_tokens)
            took = duration(time.monotonic() - started_s)
            one.messages += [turn, {"role": "assistant", "content": answer.text}]
            self._console.print(styled("[bold cyan]{}[/]  [dim]{}[/]", name, took))
            print_indented(self._console, Text(printable(answer.text) or "(empty)"), 2)
            if said := _ENDS.get(answer.ended):
                self._console.print(styled("  [yellow]({})[/]", said))
