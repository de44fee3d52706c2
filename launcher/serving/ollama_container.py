"""An Ollama server in a container beside the launcher, for a machine with an engine and no Ollama.

The container `affineur-ollama` runs for as long as the launcher needs it, and is stopped, not
removed, where the launcher started it; the volume of the same name keeps the models.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from docker import DockerClient
from docker.errors import DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest, Mount

from contract.errors import UserError
from contract.events import Progress
from launcher.display import Display
from launcher.project import CACHE
from launcher.runtime.docker_engine import DockerEngine, EngineFacts
from launcher.runtime.docker_errors import TOOLKIT_REMEDY
from launcher.runtime.started_service import StartedService
from launcher.serving.ollama_address import address
from launcher.serving.ollama_server import OllamaServer, server_version
from launcher.serving.temporary_models import remove_left_behind

if TYPE_CHECKING:
    from docker.models.containers import Container
    from docker.models.images import Image

NAME = "affineur-ollama"
_DEFAULT_IMAGE = "ollama/ollama:0.34.1"
IMAGE_VARIABLE = "AFFINEUR_OLLAMA_IMAGE"
_MODELS = "/root/.ollama"
_PORT_INSIDE = 11434
# No label names a launcher or a stage: the sweep of dead launchers' containers passes it by.
_OURS = {"dev.affineur.project": "affineur", "dev.affineur.service": "ollama"}
_PORT_LABEL = "dev.affineur.port"
_IMAGE_LABEL = "dev.affineur.image"
_MADE_FOR_LABEL = "dev.affineur.made-for"
# A server looks for cards before it answers, and the first start reads its image from the disk.
_PATIENCE_S = 120
_ASKED_EVERY_S = 0.2
_TIME_TO_STOP_S = 30
_LOG_LINES = 8
_WHERE = "--ollama container"
_OTHERWISE = f"Set {IMAGE_VARIABLE} to use another image, or use --ollama host."


class OllamaContainer:
    """The server in the container `affineur-ollama`, at the port of `OLLAMA_HOST`."""

    version: str | None = None

    def __init__(self, display: Display) -> None:
        """See to all that can be seen to before the server is needed; its image is pulled.

        Raises:
            UserError: `OLLAMA_HOST` is another machine's, no engine answers here, the name or the
                port is somebody else's, or the image cannot be had.
        """
        self._display = display
        self._port = _port()
        self._reference = image_reference()
        facts = _facts()
        self._cards = facts.nvidia
        # An image of gigabytes can come in silence: no time-out on the connection.
        self._client = DockerClient.from_env(timeout=None)  # type: ignore[arg-type]
        self._stopped = False
        self._mark = StartedService(CACHE / "launchers" / NAME)
        # Found once: what the reference names later on is another image.
        self._image_id: str | None = None
        self._standing()
        self._image_id = str(self._image().id)
        # Once more: what runs may be of the image that the reference named before.
        self._standing()

    @property
    def where(self) -> str:
        """Where a model is that was imported, for a sentence."""
        return f"Ollama's container {NAME}"

    @property
    def already_running(self) -> OllamaServer | None:
        """None: it is started after the training, and stopped again."""
        return None

    def how_to_ask(self, model: str) -> list[str]:
        """What a person types to ask the model, now that the launcher is done."""
        ask = f"Ask it:  docker exec -it {NAME} ollama run {model}"
        found = f"Applications can reach it at {address()}."
        return [f"Serve it:  docker start {NAME}", ask, found] if self._stopped else [ask, found]

    @contextmanager
    def running(self) -> Iterator[OllamaServer]:
        """The server, for as long as the block lasts; one that ran before runs on, unless a
        launcher that was killed left it.

        Raises:
            UserError: as at the beginning, or the container does not start, or does not answer.
        """
        container = self._standing()
        runs = container is not None and container.status == "running"
        if container is not None and runs and not self._mark.was_left_behind(_start_of(container)):
            self._display.note(f"the container {NAME} is already running and will be left running")
            yield self._serving(container)
            return
        if container is not None and runs:
            self._display.note(f"the container {NAME} was left running by a killed launcher")
        else:
            container = self._made(container)
        try:
            if not runs:
                self._start(container)
                container.reload()
            with self._mark.started_as(_start_of(container)):
                yield self._serving(container)
        finally:
            self._stop(container)

    def _serving(self, container: Container) -> OllamaServer:
        version = self._answer(container)
        server = OllamaServer(address(), version, image=self._image_id)
        remove_left_behind(server, self._display)
        return server

    def _standing(self) -> Container | None:
        """The container of the name, running or not, or None; no other stands in its way.

        Raises:
            UserError: it is not ours, or runs as something else, or the port is taken.
        """
        with _refused("the engine does not respond"):
            container = self._found()
        if container is not None and not _OURS.items() <= container.labels.items():
            raise UserError.one(
                _WHERE,
                f"the existing container {NAME} was not created by this project",
                f"Rename it (docker rename {NAME} OTHER), or use --ollama host.",
            )
        if container is not None and container.status == "running":
            image, port = (container.labels.get(one) for one in (_IMAGE_LABEL, _PORT_LABEL))
            runs = (image or container.attrs["Config"]["Image"], port)
            if runs != (self._reference, str(self._port)):
                raise UserError.one(
                    _WHERE,
                    f"{NAME} is running {runs[0]} on port {runs[1]}, but {self._reference} on "
                    f"port {self._port} was requested",
                    f"Stop it (docker stop {NAME}) to have it recreated with the same models, "
                    f"or set {IMAGE_VARIABLE}={runs[0]} OLLAMA_HOST=127.0.0.1:{runs[1]}.",
                )
            made_for = container.labels.get(_MADE_FOR_LABEL, "")
            if self._image_id is not None and not made_for.startswith(f"{self._image_id} "):
                raise UserError.one(
                    _WHERE,
                    f"{NAME} is running an image that was called {self._reference} before, and "
                    "another one is called so now",
                    f"Stop it (docker stop {NAME}) to have it recreated with the same models.",
                )
        elif _is_taken(self._port):
            raise _port_taken(self._port)
        return container

    def _found(self) -> Container | None:
        with suppress(NotFound):
            return self._client.containers.get(NAME)
        return None

    def _image(self) -> Image:
        with _refused(f"the image {self._reference} could not be pulled", _OTHERWISE):
            with suppress(ImageNotFound):
                return self._client.images.get(self._reference)
            with self._display.working("image", f"pulling {self._reference}") as line:
                done_bytes: dict[str, int] = {}
                total_bytes: dict[str, int] = {}
                for said in self._client.api.pull(self._reference, stream=True, decode=True):
                    if "error" in said:
                        raise DockerException(said["error"])
                    layer, part = said.get("id", ""), said.get("progressDetail") or {}
                    if said.get("status") == "Downloading" and part.get("total"):
                        done_bytes[layer], total_bytes[layer] = part["current"], part["total"]
                        line.on_event(
                            _megabytes(sum(done_bytes.values()), sum(total_bytes.values()))
                        )
            return self._client.images.get(self._reference)

    def _made(self, standing: Container | None) -> Container:
        """The container that stands there, or another where it was made for something else."""
        assert self._image_id is not None
        cards = "with cards" if self._cards else "without cards"
        made_for = f"{self._image_id} at {self._port} {cards}"
        with _refused("the container could not be created", "Run the same command again."):
            if standing is not None:
                if standing.labels.get(_MADE_FOR_LABEL) == made_for:
                    return standing
                self._display.note(f"recreating the container {NAME}; its models are kept")
                standing.remove()
            return self._client.containers.create(
                self._image_id,
                name=NAME,
                environment={"OLLAMA_HOST": f"0.0.0.0:{_PORT_INSIDE}"},
                # This machine's alone: a server asks nobody who they are.
                ports={f"{_PORT_INSIDE}/tcp": ("127.0.0.1", self._port)},
                mounts=[Mount(_MODELS, NAME, type="volume")],
                device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])]
                if self._cards
                else None,
                labels={
                    **_OURS,
                    _IMAGE_LABEL: self._reference,
                    _PORT_LABEL: str(self._port),
                    _MADE_FOR_LABEL: made_for,
                },
            )

    def _start(self, container: Container) -> None:
        self._display.note(f"starting the container {NAME}, at {address()}")
        try:
            container.start()
        except (DockerException, requests.RequestException) as error:
            said = _explained(error)
            # Taken since it was looked at, or by what cannot be seen from here.
            if "already allocated" in said or "already in use" in said:
                raise _port_taken(self._port) from error
            no_card = "could not select device driver" in said or "nvidia" in said.lower()
            raise UserError.one(
                _WHERE,
                f"the container {NAME} did not start: {said}",
                f"{TOOLKIT_REMEDY} Or use --ollama host." if no_card else _OTHERWISE,
            ) from error

    def _answer(self, container: Container) -> str:
        """The server's version, once it answers."""
        deadline = time.monotonic() + _PATIENCE_S
        with _refused(f"the container {NAME} disappeared", "Run the same command again."):
            while (version := server_version()) is None:
                container.reload()
                if container.status != "running":
                    code = container.attrs["State"]["ExitCode"]
                    raise self._not_serving(container, f"exited unexpectedly (exit code {code})")
                if time.monotonic() > deadline:
                    silence = f"did not respond at {address()} within {_PATIENCE_S} s"
                    raise self._not_serving(container, silence)
                time.sleep(_ASKED_EVERY_S)
        return version

    def _not_serving(self, container: Container, what: str) -> UserError:
        lines = container.logs(tail=_LOG_LINES).decode(errors="replace").strip().splitlines()
        tail = "\n    ".join(lines or ["(no output)"])
        return UserError.one(
            _WHERE,
            f"the server of {self._reference} {what}",
            f"{_OTHERWISE} Last lines of its log:\n    {tail}",
        )

    def _stop(self, container: Container) -> None:
        self._stopped = True
        try:
            container.stop(timeout=_TIME_TO_STOP_S)
        except (DockerException, requests.RequestException) as error:
            # What the block itself raised must not be lost over this.
            self._display.note(f"the container {NAME} could not be stopped: {_explained(error)}")
        else:
            self._display.note(f"stopped the container {NAME}; its models are kept")


def image_reference() -> str:
    """The image of the container, as a person names it, or else ours."""
    return os.environ.get(IMAGE_VARIABLE, "").strip() or _DEFAULT_IMAGE


def _start_of(container: Container) -> str:
    """A name for this start of it, which no other has."""
    return f"{container.id} {container.attrs['State']['StartedAt']}"


def _megabytes(done_bytes: int, total_bytes: int) -> Progress:
    done, total = round(done_bytes / 1e6), round(total_bytes / 1e6)
    return Progress(doing="pulling", done=done, total=total, unit="MB")


def _port() -> int:
    """The port at which the container's server is to be, by `OLLAMA_HOST`."""
    asked = urlsplit(address())
    port = None
    with suppress(ValueError):
        port = asked.port
    if asked.scheme != "http" or not _is_here(asked.hostname) or not port:
        raise UserError.one(
            "OLLAMA_HOST",
            f"is {address()}, but a container's server runs on this machine over plain HTTP",
            "Unset it, set OLLAMA_HOST=127.0.0.1:PORT, or use --ollama host.",
        )
    return port


def _facts() -> EngineFacts:
    try:
        facts = DockerEngine().facts()
    except UserError as error:
        raise UserError.one(
            _WHERE,
            error.problems[0].what,
            "Run ./invoke doctor --engine docker for advice, or use --ollama host.",
        ) from error
    # A socket's address has no host.
    host = urlsplit(facts.endpoint).hostname
    if host is not None and not _is_here(host):
        raise UserError.one(
            _WHERE,
            f"the engine at {facts.endpoint} is on another machine, so its ports are out of reach",
            "Use an engine on this machine, or --ollama host.",
        )
    return facts


def _is_here(host: str | None) -> bool:
    return host in ("127.0.0.1", "localhost")


def _is_taken(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _port_taken(port: int) -> UserError:
    version = server_version()
    if version is not None:
        return UserError.one(
            _WHERE,
            f"an Ollama server ({version}) is already running at {address()}",
            "Use it (--ollama host), or choose another port: OLLAMA_HOST=127.0.0.1:PORT.",
        )
    return UserError.one(
        _WHERE,
        f"port {port} is in use on this machine",
        "Choose another one: OLLAMA_HOST=127.0.0.1:PORT.",
    )


@contextmanager
def _refused(what: str, remedy: str = "") -> Iterator[None]:
    """What the engine refuses, or its silence, as a sentence."""
    try:
        yield
    except (DockerException, requests.RequestException) as error:
        raise UserError.one(_WHERE, f"{what}: {_explained(error)}", remedy) from error


def _explained(error: Any) -> str:
    return str(getattr(error, "explanation", None) or error)
