"""Names on an Ollama server that are ours for as long as a command needs them.

Each name is unique, and stands in a journal in the user's cache before it is made on the server: a
file of that name, which the launcher locks while it lives. What a launcher that was killed left
there, the next one removes; a name that is in no journal is nobody's to remove.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from contract.errors import UserError
from launcher.display import Display
from launcher.project import CACHE
from launcher.runtime.exclusive_lock import exclusive_lock
from launcher.runtime.shared_cache import shared
from launcher.serving.http_session import is_loopback
from launcher.serving.ollama_names import canonical
from launcher.serving.ollama_server import OllamaServer

_DIGEST_CHARACTERS = 12
# What is in the journal: nothing else is ever removed.
_NAME = re.compile(r"affineur-[a-z0-9]+-[0-9a-f]+-[0-9a-f]{6}")
# A server may go on with a model long after the one who asked for it is gone: it hashes gigabytes.
_MAY_STILL_COME_S = 24 * 3600
_PATIENCE_S = 60.0
# Somebody waits at the terminal, and what is not removed now is removed by the next command.
_AFTER_AN_ERROR_S = 1.0


@contextmanager
def temporary_name(server: OllamaServer, use: str, digest: str) -> Iterator[str]:
    """A name that nobody has on the server; what has it at the end of the block is removed.

    Args:
        use: what it is for, in the name: `candidate`.
        digest: of the model that is to have it, for whoever reads the server's list.
    """
    short = digest.removeprefix("sha256:")[:_DIGEST_CHARACTERS]
    name = f"affineur-{use}-{short}-{secrets.token_hex(3)}"
    entry = _journal(server) / name
    with _locked(entry):
        try:
            yield name
        except BaseException:
            with suppress(UserError):
                _remove(entry, server, _AFTER_AN_ERROR_S)
            raise
        server.delete(name)
        entry.unlink()


@contextmanager
def temporary_alias(server: OllamaServer, model: str, digest: str, use: str) -> Iterator[str]:
    """A name of our own for a model that the server has: it stays this one, whatever is done to
    the model's own name meanwhile.

    Args:
        digest: of the model's manifest on the server, as it was found.

    Raises:
        UserError: the name has become another model.
    """
    with temporary_name(server, use, digest) as name:
        server.copy(model, name)
        if server.digest(name) != digest:
            raise became_another(server, model)
        yield name


def became_another(server: OllamaServer, model: str) -> UserError:
    """The sentence for a name that somebody else took while we worked with it."""
    return UserError.one(
        "Ollama",
        f"{model} at {server.public_address} became another model meanwhile",
        "It was left as it is. Run the same command again.",
    )


@contextmanager
def only_importer(server: OllamaServer, model: str, display: Display) -> Iterator[None]:
    """Hold a name on a server against other launchers of this user, for as long as the block lasts.

    Ollama has no such lock: whoever else gives the name away is seen by its digest alone.
    """
    folder = _folder(server) / "names" / _as_file_name(canonical(model))
    with ExitStack() as held:
        try:
            held.enter_context(exclusive_lock(folder))
        except UserError:
            display.note(f"waiting for another command that imports {model}")
            held.enter_context(exclusive_lock(folder, wait=True))
        yield


def remove_left_behind(server: OllamaServer, display: Display) -> None:
    """Remove what launchers that were killed left on the server, and say so in one line.

    A server that fails at it is left alone: the next command tries again.
    """
    folder = _journal(server)
    if not folder.is_dir():
        return
    removed = []
    with suppress(UserError):
        for entry in sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)):
            with _of_the_dead(entry) as dead:
                if dead and _remove(entry, server):
                    removed.append(entry.name)
    if removed:
        what = "a temporary model" if len(removed) == 1 else f"{len(removed)} temporary models"
        display.note(f"removed {what} that an earlier command left: {', '.join(removed)}")


def _remove(entry: Path, server: OllamaServer, patience_s: float = _PATIENCE_S) -> bool:
    """Remove the entry's model, and say whether there was one.

    Where there is none, it may still come, so the entry stays for a day: what was to make it may
    have been cut off only here.
    """
    found = server.delete(entry.name, patience_s=patience_s)
    if found or time.time() - entry.stat().st_mtime > _MAY_STILL_COME_S:
        entry.unlink()
    return found


@contextmanager
def _locked(entry: Path) -> Iterator[None]:
    """A new entry, held until the block ends; a killed launcher lets go of it."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with entry.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_there(entry, file):
                os.fsync(file.fileno())
                yield
                return
        # Between the two calls another launcher took it for a dead one's and removed it.


@contextmanager
def _of_the_dead(entry: Path) -> Iterator[bool]:
    """Whether no living launcher holds the entry; if so, it is held while the block lasts."""
    try:
        file = entry.open("r+")
    except FileNotFoundError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield _is_there(entry, file)


def _is_there(entry: Path, file: IO[str]) -> bool:
    """Whether the open file is the one that has the name."""
    with suppress(FileNotFoundError):
        return entry.stat().st_ino == os.fstat(file.fileno()).st_ino
    return False


def _journal(server: OllamaServer) -> Path:
    return _folder(server) / "temporary"


def _folder(server: OllamaServer) -> Path:
    """What is known of one server in this user's cache, which several machines may share."""
    parts = urlsplit(server.public_address)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    # Another machine's loopback is another server.
    here = f"{platform.node()}-" if is_loopback(host) else ""
    return (shared("ollama") or CACHE / "ollama") / _as_file_name(
        f"{here}{host}-{parts.port}{parts.path}"
    )


def _as_file_name(text: str) -> str:
    """Readable, and another one for every text."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:80]
    return f"{readable}-{sha256(text.encode()).hexdigest()[:8]}"
