"""What several of the launcher's tests stand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from contract.digest import digest_of_file
from contract.serving import Serving
from launcher.pipeline import finished_run
from launcher.pipeline.model_files import ModelFiles
from launcher.promote.log import LogEntry
from tests.conftest import bare_clone, invoke
from tests.stand_in import Answering, Ollama, StandIn, running


@pytest.fixture
def serve() -> Iterator[Callable[[Answering], StandIn]]:
    """Starts servers that answer as they are told, and end with the test."""
    with ExitStack() as started:
        yield lambda reply: started.enter_context(running(StandIn(reply)))


@pytest.fixture
def ollama() -> Ollama:
    """What the server of `ollama_server` holds."""
    return Ollama()


@pytest.fixture
def ollama_server(serve, ollama, monkeypatch, tmp_path_factory) -> StandIn:
    """An Ollama server at `OLLAMA_HOST`, and a cache of its own in which it is known."""
    server: StandIn = serve(ollama)
    monkeypatch.setenv("OLLAMA_HOST", server.address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    return server


@pytest.fixture
def models(tmp_path: Path, monkeypatch) -> Path:
    """The folder of all models, for runs that a test makes."""
    folder = tmp_path / "modèles d'été"
    monkeypatch.setattr(finished_run, "MODELS", folder)
    return folder


@pytest.fixture(scope="module")
def clone(plain_project, tmp_path_factory) -> Path:
    """A clone for runs that a module's tests make, and for commands that look at them."""
    assert invoke(plain_project, "--list").returncode == 0
    (plain_project / "data" / "cache").mkdir(exist_ok=True)
    folder: Path = tmp_path_factory.mktemp("à part") / "clone d'été"
    return bare_clone(plain_project, folder)


class MadeRun:
    """As much of a finished run as an import looks at: a model of one file, and its folder."""

    def __init__(self, folder: Path, content: str = "weights") -> None:
        self.folder, self.name = folder, folder.name
        file = folder / "gguf" / "model-f16.gguf"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        self.serving = Serving(
            gguf="gguf/model-f16.gguf", template="{{ .Prompt }}", system=None, parameters={}
        )
        self.files = self.files_as(self.serving)
        self.model_digest = self.files.digest

    def files_as(self, serving: Serving) -> ModelFiles:
        """See `Run.files_as`."""
        digest = f"sha256:{digest_of_file(self.folder / serving.gguf)}"
        return ModelFiles("m", self.folder, serving, {serving.gguf: digest})


@pytest.fixture
def made_run(tmp_path) -> MadeRun:
    """A finished run of the model `m`."""
    return MadeRun(tmp_path / "m" / "0123")


def log_entry(before: str = "x", after: str = "m:1", did: str = "promote", **more: Any) -> LogEntry:
    """A line of the log of promotions."""
    values = {
        "at": "2026-01-01T00:00:00+00:00",
        "did": did,
        "role": "sfd_analyzer",
        "before": before,
        "after": after,
        "model": "m",
        "digest": "d",
        "run": "r",
        "gate": None,
        "override": None,
        "env": None,
    }
    return LogEntry(**{**values, **more})
