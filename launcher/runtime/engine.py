"""What an engine is: something that runs one stage's command and gives back events and an end.

An engine knows commands, mounts and environments; it knows nothing of recipes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from contract.child_environment import PROXIES
from contract.events import Event
from contract.launch import LAUNCHED
from contract.manifest import ImageRecord
from launcher.display import Display

# Where mounts lie inside a container; on the host a stage is given the real paths.
INSIDE = PurePosixPath("/affineur")

# What a job with network may know of this machine's environment: where the hub is, and the way.
_NETWORK_PASSED_ON = ("HF_ENDPOINT", *PROXIES)

# How long a stage that is asked to stop may take, in every engine, and what is said meanwhile.
TIME_TO_STOP_S = 120
STOPPING = f"stopping; waiting up to {TIME_TO_STOP_S} s for a clean exit"


@dataclass(frozen=True)
class Mount:
    """A folder or file that a stage may see, by the name of its flag."""

    name: str
    source: Path
    writable: bool = False

    @property
    def flag(self) -> str:
        """`--llama-cpp` for `llama_cpp`."""
        return "--" + self.name.replace("_", "-")

    @property
    def inside(self) -> PurePosixPath:
        """Its place in a container; a file keeps its name, whose suffix says its format."""
        place = INSIDE / self.name
        return place / self.source.name if self.source.is_file() else place


@dataclass(frozen=True)
class Job:
    """One stage's command: a module of the trainer, what it may see, and what it is allowed.

    `exporter`: it runs in the image that has llama.cpp's converters and compiled tools.
    `code_folder` is a copy of the project's code, for an engine whose images do not hold it.
    `image`: the digest that `Engine.image` found for it; what is recorded is what runs.
    `secrets`: are said to it on its standard input and stand nowhere else.
    """

    module: str
    lock: str
    mounts: tuple[Mount, ...]
    log: Path
    network: bool = False
    gpu: bool = False
    exporter: bool = False
    code_folder: Path | None = None
    image: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The stage's name: the module's last part."""
        return self.module.rpartition(".")[2]

    def command(self) -> list[str]:
        """The command as every engine means it, without this machine's paths."""
        flags = [part for mount in self.mounts for part in (mount.flag, str(mount.inside))]
        return ["python", "-m", self.module, *flags]

    def environment_variables(self) -> dict[str, str]:
        """The environment variables that every engine sets; the same on every machine but for
        the way to the network, where the job has one.
        """
        way = {"HF_HUB_OFFLINE": "1"}
        if self.network:
            way = {name: os.environ[name] for name in _NETWORK_PASSED_ON if name in os.environ}
        return {
            **way,
            LAUNCHED: "yes",
            # Sets are written to files in their order of iteration.
            "PYTHONHASHSEED": "0",
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
            # Threads that wait for each other by spinning stand still as soon as anything else
            # wants a core: on two busy ones a training came to a halt. Those that sleep at once
            # take a quarter longer where nothing else does. A thousand turns are some microseconds.
            "OMP_WAIT_POLICY": "PASSIVE",
            "GOMP_SPINCOUNT": "1000",
            # oneDNN keeps the code that it made for each shape of a product in bf16, 1,024 of them
            # and some 0.4 MB each. No two packed micro-batches have the same shapes; those of one
            # are a few dozen, which its layers share.
            "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }


@dataclass(frozen=True)
class Ending:
    """How a job ended: its exit code, or the number of the signal that ended it, negative.

    `memory_ran_out` is said where the engine knows it; it is not always told.
    `memory_limit_bytes` is the job's own limit; None where it has none, or where that is not known.
    """

    code: int
    memory_ran_out: bool = False
    memory_limit_bytes: int | None = None


class Engine(Protocol):
    """Runs jobs, one at a time."""

    @property
    def name(self) -> str:
        """Which engine it is, as it stands in records."""
        ...

    def image(self, lock: str, display: Display, *, exporter: bool = False) -> ImageRecord | None:
        """The image that this lock's jobs run in, built where it must be; None without images."""
        ...

    def is_ready(self, lock: str, *, exporter: bool = False) -> bool:
        """Whether this lock's jobs can run at once, with nothing to be built or fetched first."""
        ...

    def has_image(self, digest: str) -> bool:
        """Whether the image of this digest is there."""
        ...

    def run(self, job: Job, on_event: Callable[[Event], None], display: Display) -> Ending:
        """Run the job to its end.

        Makes what the job needs first. When it is interrupted it stops the job, lets it end in
        good order, and only then raises KeyboardInterrupt again. A job whose launcher is killed
        hears of it by the end of its standard input, and stops by itself.
        """
        ...
