"""Real Ollama servers, each with a store of its own, on a free port.

Everything in this folder fails without one; see CONTRIBUTING.md. Run by `./invoke test --serving`.
`AFFINEUR_OLLAMA` names the programs, with ':' between them; without it `ollama` is looked for.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from launcher.serving import server as serving
from tests.conftest import fresh_copy, invoke

NAME = "affineur-smoke"


def programs() -> list[str]:
    given = os.environ.get("AFFINEUR_OLLAMA", "")
    return [path for path in given.split(":") if path] or [shutil.which("ollama") or "ollama"]


class Ollama:
    """A server process that can be killed and started again on the same store."""

    def __init__(self, program: str, home: Path) -> None:
        self.program, self.home = program, home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.home), "OLLAMA_HOST": self.host}

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "serve"],
                env=self.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.home / "log").read_text()[-2000:]
            try:
                with socket.create_connection(("127.0.0.1", int(self.host.split(":")[1])), 1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server did not come up")

    def kill(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def halt(self) -> None:
        """The server hears nothing any more, and is not dead yet."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def run(self, *words: str, **more) -> subprocess.CompletedProcess[str]:
        """`ollama words...`, the command line that people use."""
        # A terminal, as people have: what else comes in is put before the prompt, with a space.
        ours, theirs = os.openpty()
        try:
            return subprocess.run(
                [self.program, *words],
                env=self.environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
                stdin=theirs,
                **more,
            )
        finally:
            os.close(ours)
            os.close(theirs)


@pytest.fixture(scope="session", params=programs(), ids=lambda path: path.split("/")[-3:][0])
def ollama(request, tmp_path_factory):
    """One server of each program, shared by tests that leave it running."""
    server = Ollama(request.param, tmp_path_factory.mktemp("ollama") / "home")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def connected(ollama, monkeypatch):
    """Our client, at that server."""
    monkeypatch.setenv("OLLAMA_HOST", ollama.host)
    return serving.OllamaServer.found()


@pytest.fixture
def project(smoke_run, tmp_path):
    """A clone with the smoke run's environment, cache and finished run."""
    clone = fresh_copy(tmp_path / "clone é")
    (clone / ".venv").symlink_to(smoke_run.project / ".venv")
    (clone / "data" / "cache").symlink_to(smoke_run.project / "data" / "cache")
    shutil.copytree(smoke_run.project / "data" / "models", clone / "data" / "models")
    return clone


def import_smoke(project, ollama, *words):
    return invoke(project, "import", "--model", NAME, *words, OLLAMA_HOST=ollama.host)
