"""Which models are asked: a run's model or any other, and its base, on a server or by llama-server.

Each is known by its digest before it is started, so that one whose answers are all there is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from contract import paths
from contract.chat_format import ChatFormat
from contract.errors import UserError
from contract.reasoning import mentions_reasoning, without_reasoning
from contract.reference import Reference
from launcher.display import Display
from launcher.evaluate.record import ModelIdentity
from launcher.pipeline.finished_run import Run
from launcher.pipeline.model_files import ModelFiles
from launcher.serving.chat_model import ChatModel, OllamaModel
from launcher.serving.import_records import ImportRecords
from launcher.serving.llama_server import PROGRAM, llama_server
from launcher.serving.model_import import temporarily_on_server
from launcher.serving.ollama_names import full_name
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.temporary_models import temporary_alias


@dataclass(frozen=True)
class EvaluatedModel:
    """A model that is to be asked, and how it is started where that is needed."""

    identity: ModelIdentity
    start: Callable[[], AbstractContextManager[ChatModel]]


def on_server(server: OllamaServer, name: str, run: Run | None) -> EvaluatedModel:
    """A model that the server has under this name.

    Args:
        run: the run whose model it is to be, or None where it may be any model.

    Raises:
        UserError: there is no such model, or it is not the run's.
    """
    digest = server.digest(name)
    if digest is None:
        remedy = f"./invoke import --model {name}" if run else f"Available: {_known(server)}."
        raise UserError.one("Ollama", f"{server.public_address} has no model {name}", remedy)
    made = None
    if run is not None:
        made = ImportRecords.of(run).model_digest(digest)
        if made != run.model_digest:
            raise UserError.one(
                "Ollama",
                f"the model {name} at {server.public_address} does not belong to run {run.name}",
                f"Import it (./invoke import --model {name}), or select its run with --run.",
            )
    model = OllamaModel(server, name, name, digest)
    return EvaluatedModel(_identity(model, made), lambda: _under_own_name(model))


def from_file(files: ModelFiles, parallel: int, display: Display) -> EvaluatedModel:
    """A model that llama-server loads from its files: a run's own, or its base's."""
    identity = ModelIdentity(
        name=files.name, by=PROGRAM, digest=files.digest, model_digest=files.digest
    )
    return EvaluatedModel(identity, lambda: llama_server(files, parallel, display))


def base_on_server(files: ModelFiles, server: OllamaServer, display: Display) -> EvaluatedModel:
    """The base of a run, on the server for as long as it is asked."""
    model = OllamaModel(server, files.name, files.name, files.digest)
    return EvaluatedModel(
        _identity(model, files.digest), lambda: _temporary_base(files, model, display)
    )


def run_reasons(run: Run) -> bool:
    """Whether a run's model reasons before it answers, by its template or by what it was taught."""
    path = run.folder / paths.CHAT_FORMAT
    if path.exists() and ChatFormat.read(path).thinking:
        return True
    path = run.folder / paths.REFERENCE
    answers = [one.answer for one in Reference.read(path).questions] if path.exists() else []
    return any(without_reasoning(answer) != answer for answer in answers)


def served_reasons(server: OllamaServer, name: str) -> bool:
    """Whether a model of the server's may reason before it answers, as far as the server says."""
    shown = server.show(name)
    if "thinking" in (shown.get("capabilities") or []):
        return True
    # Servers of old list no capabilities.
    return mentions_reasoning(str(shown.get("template", "")))


@contextmanager
def _under_own_name(model: OllamaModel) -> Iterator[ChatModel]:
    """The model, asked under a name that no import gives to another one meanwhile."""
    name = full_name(model.served)
    with temporary_alias(model.server, name, model.digest, "evaluated") as alias:
        yield replace(model, served=alias)


@contextmanager
def _temporary_base(files: ModelFiles, model: OllamaModel, display: Display) -> Iterator[ChatModel]:
    why = "the base, for comparison"
    with temporarily_on_server("base", files, model.server, display=display, why=why) as name:
        yield replace(model, served=name)


def _identity(model: OllamaModel, made: str | None) -> ModelIdentity:
    return ModelIdentity(
        name=model.name,
        by=model.by,
        address=model.server.public_address,
        image=model.server.image,
        digest=model.digest,
        model_digest=made,
    )


def _known(server: OllamaServer) -> str:
    return ", ".join(sorted(server.models())) or "none"
