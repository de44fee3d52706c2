"""The engine `docker`: a container for each job."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# `import docker` would succeed, empty, where the SDK is missing: the folder docker/ is found.
from docker import DockerClient
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest, Ulimit
from docker.types import Mount as BindMount
from docker.utils import parse_bytes

from contract.disk_space import check_disk_space
from contract.errors import ExitCode, UserError
from contract.events import Event, parse_event
from contract.manifest import CONTRACT_VERSION, ImageRecord
from launcher.display import Display
from launcher.runtime import docker_errors, images
from launcher.runtime.engine import CERTIFICATES, STOPPING, TIME_TO_STOP_S, Ending, Job, Mount
from launcher.runtime.images import BuildInputs
from launcher.runtime.logged_process import open_log

if TYPE_CHECKING:
    from docker.models.containers import Container

_PROJECT_LABEL = "dev.affineur.project"
_OWNER_LABEL = "dev.affineur.launcher"
_SHARED_MEMORY = "1g"
_OPEN_FILES = 65536
# What Docker itself refuses to go below.
_LEAST_MEMORY_BYTES = 6 << 20
# Measured on the larger image, t4: 16.0 GB in containerd's store, 7.9 GB of it in overlay2's.
_IMAGE_TWICE_BYTES, _IMAGE_ONCE_BYTES = 18 * 10**9, 10 * 10**9


@dataclass(frozen=True)
class EngineFacts:
    """What an engine says about itself."""

    endpoint: str
    version: str
    store: str
    root: Path
    rootless: bool
    remapped: bool
    nvidia: bool

    @property
    def keeps_layers_twice(self) -> bool:
        """Whether layers are kept packed and unpacked: containerd's store does."""
        return self.store.startswith("containerd")


class DockerEngine:
    """Runs each job in a container of the lock's image."""

    name = "docker"

    def __init__(self, memory: str = "") -> None:
        """Connect. `memory` is the most that a container may use, in Docker's form (`12g`).

        Raises:
            UserError: no engine answers, or not to this user, or it is too old.
        """
        self._memory = _memory_bytes(memory)
        self._facts: EngineFacts | None = None
        try:
            # Training is silent for hours: no time-out on the connection.
            self._client = DockerClient.from_env(timeout=None)  # type: ignore[arg-type]
            version = self._client.version()
        except (DockerException, OSError) as error:
            raise docker_errors.unreachable(str(error), _address()) from error
        docker_errors.check_version(version, _address())

    def run(self, job: Job, on_event: Callable[[Event], None], display: Display) -> Ending:
        """See `Engine.run`. The image is built first where its sources changed."""
        self.sweep(display)
        image = self.image(job.lock, display, exporter=job.exporter)
        container = self._create(job, image.digest)
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
        return f"{_address()} ({self._client.version()['Version']})"

    def facts(self) -> EngineFacts:
        """What the engine says about itself; it is asked once."""
        if self._facts is None:
            self._facts = self._asked_facts()
        return self._facts

    def _asked_facts(self) -> EngineFacts:
        info = self._client.info()
        status = dict(info.get("DriverStatus") or [])
        containerd = "containerd" in str(status.get("driver-type", ""))
        secured = " ".join(info.get("SecurityOptions") or [])
        return EngineFacts(
            endpoint=_address(),
            version=str(info["ServerVersion"]),
            store=f"containerd ({info['Driver']})" if containerd else str(info["Driver"]),
            root=Path(info["DockerRootDir"]),
            rootless="name=rootless" in secured,
            remapped="name=userns" in secured,
            nvidia="nvidia" in (info.get("Runtimes") or {}) or _has_cdi_spec(info),
        )

    def image(self, lock: str, display: Display, *, exporter: bool = False) -> ImageRecord:
        """The image that this project's sources make, built if it is not there.

        Raises:
            UserError: it speaks another contract, or cannot be built.
        """
        target = images.exporter(lock) if exporter else lock
        if not self.has_current(target):
            self.build(target, BuildInputs.given(), display)
        remedy = f"Run ./invoke build --profile {lock}{' --exporter' if exporter else ''}."
        found = self._find(target)
        if found is None:
            raise UserError.one(images.tag(target), "disappeared after the build", remedy)
        spoken = found.labels.get(images.CONTRACT_LABEL)
        if spoken != str(CONTRACT_VERSION):
            raise UserError.one(
                images.tag(target),
                f"uses contract version {spoken}, but this launcher needs {CONTRACT_VERSION}",
                remedy,
            )
        return ImageRecord(digest=str(found.id), builder=images.built_by(str(found.id)))

    def is_ready(self, lock: str, *, exporter: bool = False) -> bool:
        """See `Engine.is_ready`."""
        return self.has_current(images.exporter(lock) if exporter else lock)

    def has_current(self, target: str) -> bool:
        """Whether the target's image is there, made from the sources as they are."""
        found = self._find(target)
        return found is not None and found.labels.get(images.SOURCE_LABEL) == images.source_digest(
            target
        )

    def build(self, target: str, inputs: BuildInputs, display: Display) -> str:
        """Build a target's image and return its digest.

        Raises:
            UserError: no disk space for it, no buildx, or a step that failed.
        """
        # Where one is there already, most layers are shared with it.
        if self._find(images.trainer(target)) is None:
            self.check_space()
        return images.build(target, inputs, display)

    def check_space(self) -> None:
        """See that the engine's disk has space for an image from nothing.

        Raises:
            UserError: it has not.
        """
        facts = self.facts()
        # Inside a virtual machine, or on another one, its disk cannot be seen from here.
        if facts.root.is_dir():
            check_disk_space(
                facts.root,
                _IMAGE_TWICE_BYTES if facts.keeps_layers_twice else _IMAGE_ONCE_BYTES,
                where=str(facts.root),
                purpose="building an image takes up to",
                remedy="Free some space: docker system prune.",
            )

    def sweep(self, display: Display) -> None:
        """Remove the containers of launchers on this machine that are dead."""
        label = f"{_PROJECT_LABEL}=affineur"
        for container in self._client.containers.list(all=True, filters={"label": label}):
            host, _, pid = str(container.labels.get(_OWNER_LABEL, "")).rpartition(":")
            if host == platform.node() and pid.isdigit() and not Path(f"/proc/{pid}").exists():
                with suppress(NotFound, APIError):
                    container.remove(force=True)
                    display.note(
                        f"removed container {container.name}, left behind by a killed launcher"
                    )

    def _find(self, target: str) -> Any:
        try:
            return self._client.images.get(images.tag(target))
        except ImageNotFound:
            return None

    def _create(self, job: Job, image: str) -> Container:
        try:
            return self._created(job, image)
        except (APIError, ImageNotFound) as error:
            raise docker_errors.refused_container(_explained(error), _address()) from error

    def _created(self, job: Job, image: str) -> Container:
        # In a rootless engine the container's root is the caller, and all others are strangers.
        facts = self.facts()
        certificates = _certificates() if job.network else []
        return self._client.containers.create(
            image,
            job.command(),
            name=f"affineur-{job.name}-{os.getpid()}",
            user="0:0" if facts.rootless else f"{os.getuid()}:{os.getgid()}",
            # A uid without a passwd entry has no name and no home; torch asks for both.
            environment={
                **_CONTAINER_ENVIRONMENT,
                **job.environment_variables(),
                **{name: str(m.inside) for m in certificates for name in CERTIFICATES},
                **job.secrets,
            },
            mounts=[
                BindMount(str(m.inside), str(m.source), type="bind", read_only=not m.writable)
                for m in (*job.mounts, *certificates)
                if not (job.exporter and m.name in images.BROUGHT_ALONG)
            ],
            network_mode="bridge" if job.network else "none",
            read_only=True,
            tmpfs={"/tmp": "rw,mode=1777"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            # Where the engine maps users to others, outputs would not be the caller's.
            userns_mode="host" if facts.remapped else None,
            shm_size=_SHARED_MEMORY,
            # The same bound with swap: slow death is no better.
            mem_limit=self._memory,
            memswap_limit=self._memory,
            ulimits=[_open_files()],
            device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])] if job.gpu else None,
            labels={
                _PROJECT_LABEL: "affineur",
                _OWNER_LABEL: f"{platform.node()}:{os.getpid()}",
                "dev.affineur.stage": job.name,
                images.CONTRACT_LABEL: str(CONTRACT_VERSION),
                **{f"dev.affineur.{name}": value for name, value in job.labels.items()},
            },
        )

    def _follow(self, container: Container, job: Job, on_event: Callable[[Event], None]) -> Ending:
        stream = container.attach(stdout=True, stderr=True, stream=True, demux=True, logs=True)
        try:
            container.start()
        except APIError as error:
            raise docker_errors.refused_start(_explained(error)) from error
        with open_log(job.log) as log:
            for line in _event_lines(stream, log.write):
                event = parse_event(line)
                if event is None:
                    log.write(line + "\n")
                else:
                    on_event(event)
        ended = container.wait()
        container.reload()
        code = int(ended["StatusCode"])
        if code > 128 and code != ExitCode.INTERRUPTED:
            # By convention, 128 and the signal's number.
            code = 128 - code
        return Ending(code, bool(container.attrs["State"].get("OOMKilled")))


def _open_files() -> Ulimit:
    # Engine 29 leaves a container 1,024; more than this machine's own bound is refused.
    bound = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    number = _OPEN_FILES if bound == resource.RLIM_INFINITY else min(_OPEN_FILES, bound)
    return Ulimit(name="nofile", soft=number, hard=number)


_CONTAINER_ENVIRONMENT = {
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


def _address() -> str:
    # The SDK follows the command line's context where DOCKER_HOST is silent; so does this.
    if given := os.environ.get("DOCKER_HOST"):
        return given
    with suppress(DockerException):
        if context := ContextAPI.get_current_context():
            return str(context.Host)
    return "the default address"


def _explained(error: APIError) -> str:
    return str(error.explanation or error)


def _has_cdi_spec(info: dict[str, Any]) -> bool:
    folders = [Path(folder) for folder in info.get("CDISpecDirs") or []]
    return any(list(folder.glob("*nvidia*")) for folder in folders if folder.is_dir())


def _certificates() -> list[Mount]:
    """This machine's certificates for a job with network: a company's proxy signs with its own."""
    given = [os.environ.get(name, "") for name in ("AFFINEUR_CA", *CERTIFICATES)]
    files = [Path(place).resolve() for place in given if place and Path(place).is_file()]
    return [Mount("certificates", files[0])] if files else []


def _memory_bytes(given: str) -> int | None:
    if not given:
        return None
    try:
        found = int(parse_bytes(given))
    except (DockerException, ValueError):
        found = 0
    if found < _LEAST_MEMORY_BYTES:
        raise UserError.one(
            "--memory",
            f"{given!r} is not a usable amount of memory",
            "Use Docker's notation: --memory 12g.",
        )
    return found
