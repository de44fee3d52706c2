"""Somebody who answers conversations: a model on an Ollama server, or one that llama-server reads.

Both answer greedily and within a bound, as the model is served: its own template, stops and system
prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from contract.answer_text import answer_text
from contract.conversation import Message, Tool
from launcher.serving.ollama_server import GREEDY, REPETITION_LOOP, OllamaServer

# By a stop, at its bound, or broken off by the server because it repeated itself.
Ended = Literal["stop", "length", "repetition_loop"]


@dataclass(frozen=True)
class Answer:
    """What was said, and how it ended.

    The text is what `contract.answer_text` makes of a message: reasoning is no part of it, and a
    call of a tool is JSON.
    """

    text: str
    ended: Ended


class ChatModel(Protocol):
    """A model that can be asked, by several threads at once."""

    @property
    def name(self) -> str:
        """For people: `affineur-smoke`."""

    @property
    def digest(self) -> str:
        """Of its files and settings: the same digest gives the same answers."""

    @property
    def by(self) -> str:
        """Who answers for it: `Ollama 0.34.1` or `llama-server`."""

    def ask(
        self, messages: Sequence[Message], max_new_tokens: int, tools: Sequence[Tool] = ()
    ) -> Answer:
        """The model's greedy answer, at most so long.

        Args:
            messages: the conversation so far.
            max_new_tokens: the most that reasoning and answer may have.
            tools: the functions that the model may call.

        Raises:
            UserError: nobody answers any more.
        """

    def abort(self) -> None:
        """End every `ask` that waits for its answer, in whichever thread: it fails at once."""


@dataclass(frozen=True)
class OllamaModel:
    """A model of an Ollama server's."""

    server: OllamaServer
    # As the server knows it.
    served: str
    name: str
    digest: str

    @property
    def by(self) -> str:
        """See `ChatModel.by`."""
        return f"Ollama {self.server.version}"

    def ask(
        self, messages: Sequence[Message], max_new_tokens: int, tools: Sequence[Tool] = ()
    ) -> Answer:
        """See `ChatModel.ask`."""
        request: dict[str, Any] = {
            "model": self.served,
            "messages": list(messages),
            "options": {**GREEDY, "num_predict": max_new_tokens},
        }
        if tools:
            request["tools"] = list(tools)
        said = self.server.chat(**request)
        text = answer_text(said.get("message") or {})
        ended: dict[str, Ended] = {"stop": "stop", REPETITION_LOOP: "repetition_loop"}
        return Answer(text, ended.get(str(said.get("done_reason")), "length"))

    def abort(self) -> None:
        """See `ChatModel.abort`."""
        self.server.abort()
