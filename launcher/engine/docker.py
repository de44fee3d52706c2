"""The engine `docker`: a container for each job. The only module that imports the SDK."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

# `import docker` would succeed, empty, where the SDK is missing: the folder docker/ is found.
from docker import DockerClient
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest, Ulimit
from docker.types import Mount as BindMount

from launcher import images
from launcher.display import Display
from launcher.engine.interface import STOPPING, TIME_TO_STOP_S, Job
from launcher.images import BuildInputs
from trainer.contract.errors import ExitCode, UserError
from trainer.contract.events import Event, parse_event
from trainer.contract.manifest import CONTRACT_VERSION

if TYPE_CHECKING:
    from docker.models.containers import Container

_PROJECT_LABEL = "dev.affineur.project"
_OWNER_LABEL = "dev.affineur.launcher"
_SHARED_MEMORY = "1g"
_OPEN_FILES = 65536


class DockerEngine:
    """Runs each job in a container of the lock's image."""

    name = "docker"

    def __init__(self) -> None:
        """Connect.

        Raises:
            UserError: no engine answers, or not to this user.
        """
        try:
            # Training is silent for hours: no time-out on the connection.
            self._client = DockerClient.from_env(timeout=None)  # type: ignore[arg-type]
            self._client.ping()
        except (DockerException, OSError) as error:
            raise _unreachable(error) from error

    def run(self, job: Job, on_event: Callable[[Event], None], display: Display) -> int:
        """See `Engine.run`. The image is built first where its sources changed."""
        self.sweep(display)
        image = self.image(job.lock, display)
        container = self._create(job, image)
        try:
            return self._follow(container, job, on_event)
        except BaseException:
            _stop(container, display)
            raise
        finally:
            with suppress(NotFound, APIError):
                container.remove(force=True)

    def endpoint(self) -> str:
        """Which engine answers, and where: there may be several on a machine."""
        where = os.environ.get("DOCKER_HOST", "the default address")
        return f"{where} ({self._client.version()['Version']})"

    def image(self, lock: str, display: Display) -> str:
        """The id of the image that this project's sources make, built if it is not there.

        Raises:
            UserError: it speaks another contract, or cannot be built.
        """
        wanted = images.source_digest(lock)
        found = self._find(lock)
        if found is None or found.labels.get(images.SOURCE_LABEL) != wanted:
            images.build(lock, BuildInputs.given(), display)
            found = self._find(lock)
        if found is None:
            raise UserError.one(images.tag(lock), "was built and is gone", "Run ./invoke build.")
        spoken = found.labels.get(images.CONTRACT_LABEL)
        if spoken != str(CONTRACT_VERSION):
            raise UserError.one(
                images.tag(lock),
                f"speaks contract {spoken}, and this launcher speaks {CONTRACT_VERSION}",
                "Run ./invoke build.",
            )
        return str(found.id)

    def sweep(self, display: Display) -> None:
        """Remove the containers of launchers on this machine that are dead."""
        label = f"{_PROJECT_LABEL}=affineur"
        for container in self._client.containers.list(all=True, filters={"label": label}):
            host, _, pid = str(container.labels.get(_OWNER_LABEL, "")).rpartition(":")
            if host == platform.node() and pid.isdigit() and not Path(f"/proc/{pid}").exists():
                with suppress(NotFound, APIError):
                    container.remove(force=True)
                    display.note(f"removed container {container.name}, left by a dead launcher")

    def _find(self, lock: str) -> Any:
        try:
            return self._client.images.get(images.tag(lock))
        except ImageNotFound:
            return None

    def _create(self, job: Job, image: str) -> Container:
        return self._client.containers.create(
            image,
            job.command(),
            user=f"{os.getuid()}:{os.getgid()}",
            # A uid without a passwd entry has no name and no home; torch asks for both.
            environment={**_SURROUNDINGS, **job.surroundings(), **job.secrets},
            mounts=[
                BindMount(str(m.inside), str(m.source), type="bind", read_only=not m.writable)
                for m in job.mounts
            ],
            network_mode="bridge" if job.network else "none",
            read_only=True,
            tmpfs={"/tmp": "rw,mode=1777"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            shm_size=_SHARED_MEMORY,
            ulimits=[_open_files()],
            device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])] if job.card else None,
            labels={
                _PROJECT_LABEL: "affineur",
                _OWNER_LABEL: f"{platform.node()}:{os.getpid()}",
                "dev.affineur.stage": job.module.rpartition(".")[2],
                images.CONTRACT_LABEL: str(CONTRACT_VERSION),
            },
        )

    def _follow(self, container: Container, job: Job, on_event: Callable[[Event], None]) -> int:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        stream = container.attach(stdout=True, stderr=True, stream=True, demux=True, logs=True)
        try:
            container.start()
        except APIError as error:
            raise _refused_start(error) from error
        with job.log.open("w", encoding="utf-8") as log:
            for line in _event_lines(stream, log.write):
                event = parse_event(line)
                if event is None:
                    log.write(line + "\n")
                else:
                    on_event(event)
        ended = container.wait()
        container.reload()
        if container.attrs["State"].get("OOMKilled"):
            return -9
        code = int(ended["StatusCode"])
        # By convention, 128 and the signal's number.
        return code if code <= 128 or code == ExitCode.INTERRUPTED else -(code - 128)


def _open_files() -> Ulimit:
    # Engine 29 leaves a container 1,024; more than this machine's own bound is refused.
    bound = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    number = _OPEN_FILES if bound == resource.RLIM_INFINITY else min(_OPEN_FILES, bound)
    return Ulimit(name="nofile", soft=number, hard=number)


_SURROUNDINGS = {
    "HOME": "/tmp/home",
    "USER": "affineur",
    "HF_HOME": "/tmp/home/huggingface",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/home/inductor",
    "TRITON_CACHE_DIR": "/tmp/home/triton",
}


def _event_lines(stream: Any, on_error_output: Callable[[str], Any]) -> Iterator[str]:
    """Standard output by lines; standard error to the log as it comes."""
    pending = b""
    for output, error in stream:
        if error:
            on_error_output(error.decode(errors="replace"))
        if output:
            *lines, pending = (pending + output).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
    if pending:
        yield pending.decode(errors="replace")


def _stop(container: Container, display: Display) -> None:
    with suppress(NotFound, APIError):
        container.reload()
        if container.status == "running":
            display.note(STOPPING)
            container.stop(timeout=TIME_TO_STOP_S)


def _unreachable(error: Exception) -> UserError:
    said = str(error)
    if "Permission denied" in said or "PermissionError" in said:
        return UserError.one(
            "docker",
            "the engine's socket is not open to this user",
            "sudo usermod -aG docker $USER, then log in again.",
        )
    where = os.environ.get("DOCKER_HOST", "the default address")
    return UserError.one(
        "docker",
        f"no engine answers at {where}",
        "Start it (sudo systemctl start docker), or take --engine local.",
    )


def _refused_start(error: APIError) -> UserError:
    said = str(error.explanation or error)
    if "could not select device driver" in said or "nvidia" in said.lower():
        return UserError.one(
            "docker",
            "the engine cannot reach a card",
            "Install the NVIDIA Container Toolkit, then: sudo nvidia-ctk runtime configure "
            "--runtime=docker && sudo systemctl restart docker. Docker from snap cannot.",
        )
    return UserError.one("docker", f"the container did not start: {said}")
