"""Bring a finished run's model into an Ollama server, so that nobody is ever served half of it.

The model is made under a name of its own, looked at, and only then given the name that people
ask for: whatever stood there before is served until that moment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.digests import FileDigests
from launcher.display import Display, StageLine
from launcher.project import shown
from launcher.serving.server import OllamaServer, full_name
from trainer.contract import places as names
from trainer.contract.digest import digest_of_value
from trainer.contract.errors import Problem, UserError
from trainer.contract.events import Progress
from trainer.contract.serving import Serving
from trainer.contract.whole_file import write_whole

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
        UserError: the name is somebody else's, the server refuses or goes away, or what it
            reports is not what was sent.
    """
    digests = FileDigests()
    serving = Serving.read(run / names.SERVING)
    gguf = run / serving.gguf
    if not gguf.is_file():
        raise UserError.one(shown(gguf), "is not there", "Run ./invoke train again.")
    blob = f"sha256:{digests.of(gguf)}"
    digests.save()
    records = _Records(run.parent / _RECORDS)
    made_from = digest_of_value({"blob": blob, "serving": serving.model_dump()})
    standing = server.digest(name)
    candidate = f"{full_name(name)}-candidate"
    if standing is not None and records.made(standing) == made_from:
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
        _upload(server, gguf, blob, line)
        server.create(candidate, blob, serving, lambda status: _say(line, status))
        check_served(server, candidate, blob, serving)
    examine(candidate)
    digest = server.digest(candidate)
    if digest is None:
        raise UserError.one("Ollama", f"{candidate} was made and is gone", "Run it again.")
    # Before the name is taken: a model that stands under it is known as ours from then on.
    records.add(digest, made_from)
    server.copy(candidate, full_name(name))
    server.delete(candidate)
    return Imported(name, digest, new=True)


@contextmanager
def unrounded(run: Path, served: str, server: OllamaServer, display: Display) -> Iterator[str]:
    """A model of the run's f16 file on the server, for as long as the block lasts.

    It is the served model itself where that is of the f16 file.
    """
    serving = Serving.read(run / names.SERVING)
    exact = names.gguf_name("f16").as_posix()
    if serving.gguf == exact:
        yield served
        return
    digests = FileDigests()
    blob = f"sha256:{digests.of(run / exact)}"
    digests.save()
    beside = f"{full_name(served)}-f16"
    with display.working("import", "the unrounded file, to compare with") as line:
        _upload(server, run / exact, blob, line)
        unrounded_serving = serving.model_copy(update={"gguf": exact})
        server.create(beside, blob, unrounded_serving, lambda status: _say(line, status))
    try:
        yield beside
    finally:
        server.delete(beside)


def check_served(server: OllamaServer, model: str, blob: str, serving: Serving) -> None:
    """See that what the server reports of a model is what was sent.

    Raises:
        UserError: with everything that differs.
    """
    reported = server.show(model)
    problems = []

    def compare(what: str, sent: Any, found: Any) -> None:
        if sent != found:
            problems.append(
                Problem(
                    where=f"{model} at {server.address}",
                    what=f"{what} is {_short(found)}, and {_short(sent)} was sent",
                )
            )

    layers = re.findall(r"^FROM .*sha256[-:]([0-9a-f]{64})", reported["modelfile"], re.MULTILINE)
    # From 0.30 to 0.33 servers write the file anew, under another digest.
    if not re.match(r"0\.3[0-3]\.", server.version):
        compare("the GGUF's digest", [blob.removeprefix("sha256:")], layers)
    if serving.template is not None:
        compare("the template", serving.template, reported.get("template"))
    compare("the system prompt", serving.system or "", reported.get("system", ""))
    compare("parameters", _canonical(serving.parameters), _read_parameters(reported))
    if problems:
        raise UserError(problems)


def _canonical(parameters: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: sorted(value if isinstance(value, list) else [str(float(value))])
        for name, value in parameters.items()
    }


def _read_parameters(reported: dict[str, Any]) -> dict[str, list[str]]:
    """The lines `name   value` of `/api/show`; strings are quoted as Go does."""
    found: dict[str, list[str]] = {}
    for line in str(reported.get("parameters") or "").splitlines():
        name, _, value = line.strip().partition(" ")
        value = value.strip()
        text = json.loads(value) if value.startswith('"') else str(float(value))
        found.setdefault(name, []).append(text)
    return {name: sorted(values) for name, values in found.items()}


def _upload(server: OllamaServer, gguf: Path, blob: str, line: StageLine) -> None:
    if server.has_blob(blob):
        return
    total = gguf.stat().st_size

    def on_bytes(sent: int) -> None:
        done, whole = round(sent / 1e6), round(total / 1e6)
        line.on_event(Progress(doing="uploading", done=done, total=whole, unit="MB"))

    server.upload(gguf, blob, on_bytes)


def _say(line: StageLine, status: str) -> None:
    line.on_event(Progress(doing=status[:40], done=0, total=1, unit="model"))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
        write_whole(self._path, json.dumps(self._made, indent=1) + "\n")
