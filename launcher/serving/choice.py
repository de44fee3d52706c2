"""Which Ollama server a run's model goes to."""

from __future__ import annotations

from launcher.serving.server import OllamaServer, server_version
from trainer.contract.errors import UserError

NAMES = ("auto", "host", "none")


def choose_server(name: str) -> OllamaServer | None:
    """The server of this name: `auto` takes one that answers, `host` demands it.

    Raises:
        UserError: no such choice, or no server answers where one was demanded.
    """
    if name not in NAMES:
        raise UserError.one(
            "--ollama", f"there is no choice {name!r}", f"Known: {', '.join(NAMES)}."
        )
    if name == "none" or (name == "auto" and server_version() is None):
        return None
    return OllamaServer.found()
