"""Bring a finished run's model into an Ollama server, so that nobody is ever served half of it.

The model is made under a name of its own, looked at, and only then given the name that people
ask for: whatever stood there before is served until that moment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contract import paths
from contract.atomic_write import atomic_write
from contract.digest import digest_of_value
from contract.errors import UserError
from contract.events import Progress
from contract.serving import Serving
from launcher.display import Display, StageLine
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.run import read_manifest
from launcher.project import shown
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
    run: Path,
    name: str,
    server: OllamaServer,
    display: Display,
    *,
    replace: bool = False,
    examine: Callable[[str], None] = lambda candidate: None,
) -> Imported:
    """Bring the run's model into the server under this name.

    Args:
        run: a finished run's folder.
        replace: take the name even where a model of somebody else's has it.
        examine: looks at the candidate before it gets the name; raises where it is not right.

    Raises:
        UserError: the name is somebody else's, the server refuses or goes away, or cannot serve
            the model in this form.
    """
    serving = Serving.read(run / paths.SERVING)
    check_form(server.version, serving)
    blobs = blobs_of(run, serving)
    records = _Records(run.parent / _RECORDS)
    made = model_digest(blobs, serving)
    standing = server.digest(name)
    candidate = f"{full_name(name)}-candidate"
    if standing is not None and records.made(standing) == made:
        # One that was cut off after the last step but one.
        server.delete(candidate)
        display.up_to_date("import")
        return Imported(name, standing, new=False)
    if standing is not None and records.made(standing) is None and not replace:
        raise UserError.one(
            "Ollama",
            f"{full_name(name)} at {server.address} was not made by this project",
            "Take another output_model_name, or --replace.",
        )
    with display.working("import", f"into Ollama {server.version} at {server.address}") as line:
        _upload(server, run, blobs, line)
        server.create(candidate, blobs, serving, lambda status: _say(line, status))
    examine(candidate)
    digest = server.digest(candidate)
    if digest is None:
        raise UserError.one("Ollama", f"{candidate} was made and is gone", "Run it again.")
    # Before the name is taken: a model that stands under it is known as ours from then on.
    records.add(digest, made)
    server.copy(candidate, full_name(name))
    server.delete(candidate)
    return Imported(name, digest, new=True)


@contextmanager
def unrounded(run: Path, served: str, server: OllamaServer, display: Display) -> Iterator[str]:
    """A model of the run's f16 file on the server, for as long as the block lasts.

    It is the served model itself where that is of the f16 file.
    """
    serving = Serving.read(run / paths.SERVING)
    file = paths.gguf_name("f16") if serving.adapter is None else paths.base_gguf_name("f16")
    exact = serving.model_copy(update={"gguf": file.as_posix()})
    if exact == serving:
        yield served
        return
    blobs = blobs_of(run, exact)
    why = "the unrounded file, to compare with"
    with made_beside(run, exact, blobs, f"{full_name(served)}-f16", server, display, why) as beside:
        yield beside


@contextmanager
def made_beside(
    folder: Path,
    serving: Serving,
    blobs: Mapping[str, str],
    name: str,
    server: OllamaServer,
    display: Display,
    why: str,
) -> Iterator[str]:
    """A model of these files on the server under a name of its own, while the block lasts.

    Args:
        folder: where the files of `blobs` are.
        why: is shown while it is made.
    """
    with display.working("import", why) as line:
        _upload(server, folder, blobs, line)
        server.create(name, blobs, serving, lambda status: _say(line, status))
    try:
        yield name
    finally:
        server.delete(name)


def model_digest(blobs: Mapping[str, str], serving: Serving) -> str:
    """The digest of a model's files and of how it is served: the same on every server."""
    return digest_of_value({"blobs": dict(blobs), "serving": serving.model_dump()})


def made_from(run: Path, digest: str) -> str | None:
    """The `model_digest` of a server's model that was imported from here; None of others.

    Args:
        run: a run of the model's.
        digest: of the model's manifest, as the server has it.
    """
    return _Records(run.parent / _RECORDS).made(digest)


def blobs_of(run: Path, serving: Serving) -> dict[str, str]:
    """The files that make up the model, from the run's folder, with their digests (`sha256:...`).

    Raises:
        UserError: one of them is not there, or is not what the run made.
    """
    digests = FileDigests()
    made = {
        name: digest
        for record in read_manifest(run).stages
        for name, digest in record.outputs.items()
    }
    found = {}
    for name in (serving.gguf, serving.adapter):
        if name is None:
            continue
        digest = digests.of(run / name) if (run / name).is_file() else None
        if digest is None or digest != made.get(name):
            what = "is not there" if digest is None else "is not what the run made (cut short?)"
            raise UserError.one(
                shown(run / name), what, "Run ./invoke train again: it is made anew."
            )
        found[name] = f"sha256:{digest}"
    digests.save()
    return found


def _upload(server: OllamaServer, run: Path, blobs: Mapping[str, str], line: StageLine) -> None:
    for name, digest in blobs.items():
        if server.has_blob(digest):
            continue
        total = (run / name).stat().st_size

        def on_bytes(sent: int, total: int = total) -> None:
            done, whole = round(sent / 1e6), round(total / 1e6)
            line.on_event(Progress(doing="uploading", done=done, total=whole, unit="MB"))

        server.upload(run / name, digest, on_bytes)


def _say(line: StageLine, status: str) -> None:
    line.on_event(Progress(doing=status[:40], done=0, total=1, unit="model"))


class _Records:
    """Which of a server's models this project made, by their digests, and out of what."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def made(self, digest: str) -> str | None:
        """What the model of this digest was made from, or None where it is not ours."""
        return self._made.get(digest)

    def add(self, digest: str, made_from: str) -> None:
        """Remember a model as ours."""
        self._made[digest] = made_from
        atomic_write(self._path, json.dumps(self._made, indent=1) + "\n")
