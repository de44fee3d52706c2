"""Import a finished run's model into an Ollama server, so that nobody is ever served half of it.

The model is created under a name of its own, examined, and only then given the name that people
ask for: whatever stood there before is served until that moment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from contract import paths
from contract.atomic_write import atomic_write
from contract.errors import UserError
from contract.events import Progress
from launcher.display import Display, StageLine
from launcher.pipeline.finished_run import Run
from launcher.pipeline.model_files import ModelFiles
from launcher.serving.compatibility import check_form
from launcher.serving.ollama_server import OllamaServer, full_name

_RECORDS = "imports.json"


@dataclass(frozen=True)
class Imported:
    """A model that a server has: its name, its manifest's digest, and whether it was new."""

    name: str
    digest: str
    new: bool


def import_run(
    run: Run,
    name: str,
    server: OllamaServer,
    *,
    display: Display,
    replace: bool = False,
    examine: Callable[[str], None] = lambda candidate: None,
) -> Imported:
    """Import the run's model into the server under this name.

    Args:
        run: a finished run.
        replace: take the name even where a model that was not made here has it.
        examine: looks at the candidate before it gets the name; raises where it is not right.

    Raises:
        UserError: the name is somebody else's, the server refuses or goes away, or cannot serve
            the model in this form.
    """
    check_form(server.version, run.serving)
    files = run.files
    records = ImportRecords(run)
    standing = server.digest(name)
    candidate = f"{full_name(name)}-candidate"
    if standing is not None and records.model_digest(standing) == files.digest:
        # One that was cut off after the last step but one.
        server.delete(candidate)
        display.up_to_date("import")
        return Imported(name, standing, new=False)
    if standing is not None and records.model_digest(standing) is None and not replace:
        raise UserError.one(
            "Ollama",
            f"{full_name(name)} at {server.address} was not imported by this project",
            "Use another output_model_name, or --replace.",
        )
    with display.working("import", f"into Ollama {server.version} at {server.address}") as line:
        _create(candidate, files, server, line=line)
    examine(candidate)
    digest = server.digest(candidate)
    if digest is None:
        raise UserError.one(
            "Ollama", f"{candidate} disappeared after it was created", "Run the same command again."
        )
    # Before the name is taken: a model that stands under it is known as ours from then on.
    records.add(digest, files.digest)
    server.copy(candidate, full_name(name))
    server.delete(candidate)
    return Imported(name, digest, new=True)


@contextmanager
def unquantized(run: Run, served: str, server: OllamaServer, *, display: Display) -> Iterator[str]:
    """A model of the run's f16 file on the server, for as long as the block lasts.

    It is the served model itself where that is of the f16 file.
    """
    serving = run.serving
    file = paths.gguf_name("f16") if serving.adapter is None else paths.base_gguf_name("f16")
    exact = serving.model_copy(update={"gguf": file.as_posix()})
    if exact == serving:
        yield served
        return
    name = f"{full_name(served)}-f16"
    why = "the f16 file, for comparison"
    with temporarily_on_server(name, run.files_as(exact), server, display=display, why=why):
        yield name


@contextmanager
def temporarily_on_server(
    name: str, files: ModelFiles, server: OllamaServer, *, display: Display, why: str
) -> Iterator[None]:
    """A model of these files on the server under a name of its own, while the block lasts.

    Args:
        why: is shown while it is created.
    """
    with display.working("import", why) as line:
        _create(name, files, server, line=line)
    try:
        yield
    finally:
        server.delete(name)


def _create(name: str, files: ModelFiles, server: OllamaServer, *, line: StageLine) -> None:
    for file, digest in files.blobs.items():
        if server.has_blob(digest):
            continue
        total = (files.folder / file).stat().st_size

        def on_bytes(sent: int, total: int = total) -> None:
            done, whole = round(sent / 1e6), round(total / 1e6)
            line.on_event(Progress(doing="uploading", done=done, total=whole, unit="MB"))

        server.upload(files.folder / file, digest, on_bytes)

    def on_status(status: str) -> None:
        line.on_event(Progress(doing=status[:40], done=0, total=1, unit="model"))

    server.create(name, files, on_status)


class ImportRecords:
    """Which models of a server's were made here, by their digests there: `imports.json`, beside
    the runs of a model.
    """

    def __init__(self, run: Run) -> None:
        self._path = run.folder.parent / _RECORDS
        self._made: dict[str, str] = {}
        if self._path.exists():
            self._made = json.loads(self._path.read_text())

    def model_digest(self, digest: str) -> str | None:
        """The `model_digest` of the run's model that a server knows by this digest of its
        manifest, or None where it was not made here.
        """
        return self._made.get(digest)

    def add(self, digest: str, model_digest: str) -> None:
        """Remember a model as made here."""
        self._made[digest] = model_digest
        atomic_write(self._path, json.dumps(self._made, indent=1) + "\n")
