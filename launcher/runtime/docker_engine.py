"""The engine `docker`: a container for each job."""

from __future__ import annotations

import os
import resource
import secrets
from collections.abc import Callable
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

from contract.child_environment import CERTIFICATES
from contract.disk_space import check_disk_space
from contract.errors import UserError
from contract.events import Event
from contract.manifest import CONTRACT_VERSION, ImageRecord
from launcher.display import Display
from launcher.interruption import deferred, killed_at_once
from launcher.runtime import docker_errors, images
from launcher.runtime.docker_container import follow, kill, stop
from launcher.runtime.docker_leftovers import (
    FOLDERS_LABEL,
    LAUNCHER_LABEL,
    PROJECT,
    PROJECT_LABEL,
    sweep,
)
from launcher.runtime.docker_mounts import ContainerUser, binds_of, certificates, check_access
from launcher.runtime.engine import Ending, Job
from launcher.runtime.exclusive_lock import held_identities
from launcher.runtime.images import BuildInputs
from launcher.runtime.live_launchers import LiveLaunchers

if TYPE_CHECKING:
    from docker.models.containers import Container

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
    identity: str
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
        self._launchers: LiveLaunchers | None = None
        try:
            # Training is silent for hours: no time-out on the connection.
            self._client = DockerClient.from_env(timeout=None)  # type: ignore[arg-type]
            version = self._client.version()
        except (DockerException, OSError) as error:
            raise docker_errors.unreachable(str(error), _address()) from error
        docker_errors.check_version(version, _address())

    def run(self, job: Job, on_event: Callable[[Event], None], display: Display) -> Ending:
        """See `Engine.run`. The job's image is one that `image` gave, by its digest."""
        self.sweep(display)
        # Launchers in other containers may have our process number.
        name = f"affineur-{job.name}-{secrets.token_hex(6)}"
        container: Container | None = None
        with killed_at_once(lambda: kill(name, made=container is not None)):
            try:
                with deferred():
                    container = self._create(job, name)
                return follow(container, job, on_event)
            except BaseException:
                if container is not None:
                    stop(container, display)
                raise
            finally:
                if container is not None:
                    with deferred(), suppress(NotFound, APIError):
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
            identity=str(info.get("ID") or _address()),
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
        found = self._current(target)
        if found is None:
            # By its digest: the tag may be another clone's by now.
            found = self._find(self.build(target, BuildInputs.given(), display))
        remedy = f"Run ./invoke build --profile {lock}{' --exporter' if exporter else ''}."
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

    def has_image(self, digest: str) -> bool:
        """See `Engine.has_image`."""
        return self._find(digest) is not None

    def has_current(self, target: str) -> bool:
        """Whether the target's image is there, made from the sources as they are."""
        return self._current(target) is not None

    def build(self, target: str, inputs: BuildInputs, display: Display) -> str:
        """Build a target's image and return its digest.

        Raises:
            UserError: no disk space for it, no buildx, or a step that failed.
        """
        # Where one is there already, most layers are shared with it.
        if self._find(images.tag(images.trainer(target))) is None:
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
        """Stop and remove the containers of launchers that are dead."""
        sweep(self._client, self._live_launchers(), held_identities(), display)

    def _live_launchers(self) -> LiveLaunchers:
        if self._launchers is None:
            self._launchers = LiveLaunchers(self.facts().identity)
        return self._launchers

    def _current(self, target: str) -> Any:
        """The target's image, if it was made from the sources as they are; None otherwise."""
        found = self._find(images.tag(target))
        wanted = images.source_digest(target)
        if found is None or found.labels.get(images.SOURCE_LABEL) != wanted:
            return None
        return found

    def _find(self, name: str) -> Any:
        """The image of a tag or a digest, or None."""
        try:
            return self._client.images.get(name)
        except ImageNotFound:
            return None

    def _create(self, job: Job, name: str) -> Container:
        # In a virtual machine, or on another one, files have other owners than they have here.
        if self.facts().root.is_dir():
            check_access(job.mounts, ContainerUser(os.getuid(), os.getgid()))
        try:
            return self._created(job, name)
        except (APIError, ImageNotFound) as error:
            raise docker_errors.refused_container(
                docker_errors.explanation(error), _address()
            ) from error

    def _created(self, job: Job, name: str) -> Container:
        if job.image is None:
            raise ValueError("a job for this engine has to name the image that `image` gave")
        # In a rootless engine the container's root is the caller, and all others are strangers.
        facts = self.facts()
        signing = certificates() if job.network else []
        brought = images.BROUGHT_ALONG if job.exporter else ()
        return self._client.containers.create(
            job.image,
            job.command(),
            name=name,
            # What the launcher says comes on standard input, whose end says that it is gone.
            stdin_open=True,
            user="0:0" if facts.rootless else f"{os.getuid()}:{os.getgid()}",
            # A uid without a passwd entry has no name and no home; torch asks for both.
            environment={
                **_CONTAINER_ENVIRONMENT,
                **job.environment_variables(),
                **{name: str(m.inside) for m in signing for name in CERTIFICATES},
            },
            mounts=[
                BindMount(str(b.inside), str(b.source), type="bind", read_only=not b.writable)
                for b in binds_of([*(m for m in job.mounts if m.name not in brought), *signing])
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
                PROJECT_LABEL: PROJECT,
                LAUNCHER_LABEL: self._live_launchers().own_name(),
                FOLDERS_LABEL: ",".join(sorted(held_identities())),
                "dev.affineur.stage": job.name,
                images.CONTRACT_LABEL: str(CONTRACT_VERSION),
                **{f"dev.affineur.{name}": value for name, value in job.labels.items()},
            },
        )


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


def _address() -> str:
    # The SDK follows the command line's context where DOCKER_HOST is silent; so does this.
    if given := os.environ.get("DOCKER_HOST"):
        return given
    with suppress(DockerException):
        if context := ContextAPI.get_current_context():
            return str(context.Host)
    return "the default address"


def _has_cdi_spec(info: dict[str, Any]) -> bool:
    folders = [Path(folder) for folder in info.get("CDISpecDirs") or []]
    return any(list(folder.glob("*nvidia*")) for folder in folders if folder.is_dir())


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
