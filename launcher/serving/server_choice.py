"""Which Ollama server a run's model goes to: one that is there, or a container's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from contract.errors import UserError
from launcher.display import Display
from launcher.serving.ollama_server import OllamaServer, server_version
from launcher.serving.temporary_models import remove_left_behind

NAMES = ("auto", "host", "container", "none")
_DEMANDED = ("host", "container")


class Ollama(Protocol):
    """A server that was looked for and can be had."""

    # As far as it is known before it runs.
    version: str | None

    @property
    def where(self) -> str:
        """Where a model is that was imported, for a sentence."""

    @property
    def already_running(self) -> OllamaServer | None:
        """The server, where it runs before it is needed."""

    def running(self) -> AbstractContextManager[OllamaServer]:
        """The server, for as long as the block lasts, less what dead launchers left there."""

    def how_to_ask(self, model: str) -> list[str]:
        """What a person types to ask the model, now that the launcher is done."""


class OllamaHost:
    """The server at `OLLAMA_HOST` or the default address: somebody else started it."""

    def __init__(self, display: Display) -> None:
        """Find it.

        Raises:
            UserError: none answers there.
        """
        self._display = display
        self._server = OllamaServer.found()
        self.version: str | None = self._server.version

    @property
    def where(self) -> str:
        """See `Ollama.where`."""
        return f"Ollama at {self._server.public_address}"

    @property
    def already_running(self) -> OllamaServer | None:
        """See `Ollama.already_running`."""
        return self._server

    @contextmanager
    def running(self) -> Iterator[OllamaServer]:
        """See `Ollama.running`: it runs, and runs on."""
        remove_left_behind(self._server, self._display)
        yield self._server

    def how_to_ask(self, model: str) -> list[str]:
        """See `Ollama.how_to_ask`."""
        return [f"Ask it:  ollama run {model}"]


def choose_server(name: str, display: Display) -> Ollama | None:
    """The server of this name, or None: `auto` takes one that answers, the others demand theirs.

    Raises:
        UserError: no such choice, or the server that was demanded cannot be had.
    """
    check_name(name)
    if name == "none" or (name == "auto" and server_version() is None):
        return None
    return demand_server("host" if name == "auto" else name, display)


def demand_server(name: str, display: Display) -> Ollama:
    """The server of this name, for what cannot be done without one.

    Raises:
        UserError: no such choice, or it cannot be had.
    """
    check_name(name, _DEMANDED)
    if name == "host":
        return OllamaHost(display)
    # Here, not above: the SDK takes a while to import.
    from launcher.serving.ollama_container import OllamaContainer

    return OllamaContainer(display)


def check_name(name: str, known: tuple[str, ...] = NAMES) -> None:
    """See that a server is known by this name.

    Raises:
        UserError: it is not.
    """
    if name not in known:
        raise UserError.one("--ollama", f"unknown choice {name!r}", f"Known: {', '.join(known)}.")
