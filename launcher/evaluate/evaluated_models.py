"""Who is asked: a run's model or any other, and its base, on a server or read by llama-server.

Each is known by its digest before it is started, so that one whose answers are all there is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from contract import paths
from contract.errors import UserError
from contract.serving import Serving
from launcher.display import Display
from launcher.evaluate.record import ModelIdentity
from launcher.evaluate.stages import Baseline
from launcher.serving.chat_model import ChatModel, OllamaModel
from launcher.serving.llama_server import llama_server
from launcher.serving.model_import import blobs_of, made_beside, made_from, model_digest
from launcher.serving.ollama_server import OllamaServer, full_name


@dataclass(frozen=True)
class EvaluatedModel:
    """Somebody to be asked, and how to start them where it is needed."""

    subject: ModelIdentity
    opening: Callable[[], AbstractContextManager[ChatModel]]

    @property
    def file_name(self) -> str:
        """Where the answers are kept: other files, settings or servers answer otherwise."""
        by = self.subject.by.lower().replace(" ", "-")
        return f"{self.subject.digest.removeprefix('sha256:')[:16]}-{by}.jsonl"


def on_server(server: OllamaServer, name: str, run: Path | None) -> EvaluatedModel:
    """A model that the server has under this name.

    Args:
        run: the run whose model it is to be, or None where it may be anybody's.

    Raises:
        UserError: there is no such model, or it is not the run's.
    """
    digest = server.digest(name)
    if digest is None:
        remedy = f"./invoke import --model {name}" if run else f"There: {_known(server)}."
        raise UserError.one("Ollama", f"{server.address} has no model {name}", remedy)
    made = None
    if run is not None:
        serving = Serving.read(run / paths.SERVING)
        made = made_from(run, digest)
        if made != model_digest(blobs_of(run, serving), serving):
            raise UserError.one(
                "Ollama",
                f"what {server.address} serves as {name} is not the model of the run {run.name}",
                f"Bring it there (./invoke import --model {name}), or name its run (--run).",
            )
    model: ChatModel = OllamaModel(server, name, name, digest)
    return EvaluatedModel(_subject(model, made), lambda: nullcontext(model))


def from_file(run: Path, name: str, parallel: int, display: Display) -> EvaluatedModel:
    """A run's model, read by llama-server.

    Raises:
        UserError: its files are not there, or not what the run made.
    """
    serving = Serving.read(run / paths.SERVING)
    digest = model_digest(blobs_of(run, serving), serving)
    subject = ModelIdentity(name=name, by=_LLAMA_SERVER, digest=digest, model_digest=digest)
    return EvaluatedModel(
        subject, lambda: llama_server(run, serving, name, digest, parallel, display)
    )


def base_on_server(
    baseline: Baseline, server: OllamaServer, name: str, display: Display
) -> EvaluatedModel:
    """The base of a run, on the server for as long as it is asked.

    Args:
        name: the tuned model's, beside whose the base gets its own.
    """
    digest = model_digest(baseline.blobs, baseline.serving)
    model = OllamaModel(server, f"{full_name(name)}-base", baseline.name, digest)
    return EvaluatedModel(_subject(model, digest), lambda: _beside(baseline, model, display))


def base_from_file(baseline: Baseline, parallel: int, display: Display) -> EvaluatedModel:
    """The base of a run, read by llama-server."""
    digest = model_digest(baseline.blobs, baseline.serving)
    name = baseline.name
    subject = ModelIdentity(name=name, by=_LLAMA_SERVER, digest=digest, model_digest=digest)
    return EvaluatedModel(
        subject,
        lambda: llama_server(baseline.folder, baseline.serving, name, digest, parallel, display),
    )


_LLAMA_SERVER = "llama-server"


@contextmanager
def _beside(baseline: Baseline, model: OllamaModel, display: Display) -> Iterator[ChatModel]:
    why = "the base, to compare with"
    with made_beside(
        baseline.folder,
        baseline.serving,
        baseline.blobs,
        model.served,
        model.server,
        display,
        why,
    ):
        yield model


def _subject(model: ChatModel, made: str | None) -> ModelIdentity:
    return ModelIdentity(name=model.name, by=model.by, digest=model.digest, model_digest=made)


def _known(server: OllamaServer) -> str:
    return ", ".join(sorted(server.models())) or "none"
