"""Import a finished run's model into an Ollama server, so that nobody is ever served half of it.

The model is created under a name of its own, examined, and only then given the name that people
ask for: whatever stood there before is served until that moment. Ollama cannot give a name away on
a condition; so one launcher at a time imports under a name, and digests are compared around the
copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from contract import paths
from contract.errors import UserError
from contract.events import Progress
from launcher.display import Display, StageLine
from launcher.pipeline.finished_run import Run, model_folder
from launcher.pipeline.model_files import ModelFiles
from launcher.serving.compatibility import check_form
from launcher.serving.import_records import ImportRecords
from launcher.serving.ollama_names import check_name, full_name
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.temporary_models import became_another, only_importer, temporary_name


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
    """Import the run's model into the server under this name, once nobody else does.

    Args:
        run: a finished run.
        replace: take the name even where a model that was not made here has it.
        examine: looks at the candidate before it gets the name; raises where it is not right.

    Raises:
        UserError: the name is somebody else's, or is taken meanwhile; the server refuses or goes
            away, or cannot serve the model in this form.
    """
    check_form(server.version, run.serving)
    check_name(name)
    files = run.files
    records = ImportRecords.of(run)
    with only_importer(server, name, display):
        standing = server.digest(name)
        if standing is not None and records.model_digest(standing) == files.digest:
            display.up_to_date("import")
            return Imported(name, standing, new=False)
        if not replace:
            _check_ours(name, standing, server, records)
        why = f"into Ollama {server.version} at {server.public_address}"
        with temporarily_on_server(
            "candidate", files, server, display=display, why=why
        ) as candidate:
            created = _digest(candidate, server)
            examine(candidate)
            if _digest(candidate, server) != created:
                raise became_another(server, candidate)
            # Before the name is taken: a model that stands under it is known as ours from then on.
            records.add(created, files.digest)
            _give_name(candidate, created, name, server, standing=standing)
        return Imported(name, created, new=True)


def check_name_is_ours(name: str, server: OllamaServer) -> None:
    """No model has this name on a server, or one that was made here.

    Raises:
        UserError: another one has it.
    """
    _check_ours(name, server.digest(name), server, ImportRecords(model_folder(name)))


def _check_ours(
    name: str, standing: str | None, server: OllamaServer, records: ImportRecords
) -> None:
    if standing is not None and records.model_digest(standing) is None:
        raise UserError.one(
            "Ollama",
            f"{full_name(name)} at {server.public_address} was not imported by this project",
            "Use another output_model_name, or --replace.",
        )


def _digest(candidate: str, server: OllamaServer) -> str:
    digest = server.digest(candidate)
    if digest is None:
        raise UserError.one(
            "Ollama", f"{candidate} disappeared after it was created", "Run the same command again."
        )
    return digest


def _give_name(
    candidate: str, digest: str, name: str, server: OllamaServer, *, standing: str | None
) -> None:
    """Give the name to the candidate, where it is still whose it was when the import began.

    Raises:
        UserError: somebody else gave it to another model, before or after.
    """
    if server.digest(name) != standing:
        raise became_another(server, full_name(name))
    server.copy(candidate, full_name(name))
    if server.digest(name) != digest:
        raise became_another(server, full_name(name))


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
    files, why = run.files_as(exact), "the f16 file, for comparison"
    with temporarily_on_server("f16", files, server, display=display, why=why) as name:
        yield name


@contextmanager
def temporarily_on_server(
    use: str, files: ModelFiles, server: OllamaServer, *, display: Display, why: str
) -> Iterator[str]:
    """A model of these files on the server under a name of its own, while the block lasts.

    Args:
        use: stands in the name.
        why: is shown while it is created.
    """
    with ExitStack() as held:
        with display.working("import", why) as line:
            # Files have no names there: what has one is made of them last.
            _upload(files, server, line=line)
            name = held.enter_context(temporary_name(server, use, files.digest))
            _create(name, files, server, line=line)
        yield name


def _upload(files: ModelFiles, server: OllamaServer, *, line: StageLine) -> None:
    for file, digest in files.blobs.items():
        if server.has_blob(digest):
            continue
        total = (files.folder / file).stat().st_size

        def on_bytes(sent: int, total: int = total) -> None:
            done, whole = round(sent / 1e6), round(total / 1e6)
            line.on_event(Progress(doing="uploading", done=done, total=whole, unit="MB"))

        server.upload(files.folder / file, digest, on_bytes)


def _create(name: str, files: ModelFiles, server: OllamaServer, *, line: StageLine) -> None:
    def on_status(status: str) -> None:
        line.on_event(Progress(doing=status[:40], done=0, total=1, unit="model"))

    server.create(name, files, on_status)
