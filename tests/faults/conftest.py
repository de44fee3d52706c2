"""The ground of the fault campaign: a small run, what it makes undisturbed, and what must be true
after every fault.

Every fault is drawn from one seed (AFFINEUR_FAULT_SEED) and counted; the session ends with a table.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import docker
import psutil
import pytest
from docker.errors import NotFound
from docker.models.containers import Container

from contract.digest import files_below
from contract.manifest import Manifest
from launcher.pipeline.finished_run import Run
from tests.conftest import bare_clone, begin, invoke, needs

SEED = int(os.environ.get("AFFINEUR_FAULT_SEED", "14"))
# A share of the whole campaign, for a look.
SHARE = float(os.environ.get("AFFINEUR_FAULT_SHARE", "1"))
NAME = "small"
_DATA, _ROWS = "data/training/small.jsonl", 48
CHECKPOINT_STEPS = 3
# Twelve steps of training.
_SETTINGS: dict[str, object] = {
    "epochs": 1,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "lora_dropout": 0.1,
    "held_out_answers": 2,
    "max_new_tokens": 8,
    "logging_steps": 5,
    "eval_steps": 4,
    "checkpoint_steps": CHECKPOINT_STEPS,
    "checkpoints_kept": 2,
    "output_model_name": NAME,
    "cpu_threads": 1,
}
_RESULTS: Counter[tuple[str, str]] = Counter()


def times(whole: int) -> int:
    """How many faults of a kind this campaign has."""
    return max(1, round(whole * SHARE))


def drawn(kind: str) -> random.Random:
    """The random numbers of one kind of fault: the same whatever else is run."""
    return random.Random(f"{SEED} {kind}")


def count(kind: str, ended: str) -> None:
    """One fault more: how it ended."""
    _RESULTS[kind, ended] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The campaign's table."""
    if not _RESULTS:
        return
    terminalreporter.section(f"faults, seed {SEED}")
    terminalreporter.write_line("| fault | injected | then |")
    terminalreporter.write_line("|---|---|---|")
    for kind in sorted({kind for kind, _ in _RESULTS}):
        ended = {how: n for (of, how), n in sorted(_RESULTS.items()) if of == kind}
        how = ", ".join(f"{n} {name}" for name, n in ended.items())
        terminalreporter.write_line(f"| {kind} | {sum(ended.values())} | {how} |")
    terminalreporter.write_line(f"| all | {sum(_RESULTS.values())} | |")


@dataclass(frozen=True)
class SmallRun:
    """A run of seconds in a clone of its own.

    Attributes:
        engine: what its stages run on.
        environment: of `./invoke`, besides what a terminal has.
    """

    project: Path
    engine: str = "local"
    environment: Mapping[str, str] = field(default_factory=dict)

    def words(self, **changed: object) -> list[str]:
        """Of `./invoke`, for this run; `changed` are keys of its recipe."""
        keys = {**_SETTINGS, **changed}
        given = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
        where = ["--engine", self.engine, "--ollama", "none"]
        data = ["--profile", "smoke", "--data", _DATA]
        return ["train", *data, *where, *given]

    def train(self, **changed: object) -> subprocess.CompletedProcess[str]:
        """To its end."""
        return invoke(self.project, *self.words(**changed), **self.environment)

    def begin(self, **changed: object) -> subprocess.Popen[str]:
        """Not waited for."""
        return begin(self.project, *self.words(**changed), **self.environment)

    @property
    def folders(self) -> list[Path]:
        """Of every run of this model; one, if all is well."""
        below = self.project / "data" / "models" / NAME
        return [path for path in below.glob("*") if path.is_dir()] if below.is_dir() else []

    @property
    def folder(self) -> Path:
        """Of the run."""
        [found] = self.folders
        return found

    def outputs(self) -> dict[str, str]:
        """The digest of everything that its stages made, but for what tells the time."""
        manifest = Manifest.read(self.folder / "manifest.json")
        made = {name: digest for stage in manifest.stages for name, digest in stage.outputs.items()}
        return {name: digest for name, digest in made.items() if name != "metrics.jsonl"}

    def processes(self) -> list[psutil.Process]:
        """Whatever runs in this clone, or for it."""
        found = []
        for process in psutil.process_iter():
            try:
                words = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if str(self.project) in words and process.pid != os.getpid():
                found.append(process)
        return found

    def containers(self) -> list[Container]:
        """Of this project's stages, running or not."""
        if self.engine != "docker":
            return []
        client = docker.from_env()
        try:
            return list(client.containers.list(all=True, filters={"label": "dev.affineur.stage"}))
        finally:
            client.close()

    def stage(self) -> psutil.Process | Container | None:
        """The stage that runs now; it has `kill`."""
        for container in self.containers():
            with suppress(NotFound):
                container.reload()
                if container.status == "running":
                    return container
        for process in self.processes():
            try:
                if any(word.startswith("trainer.") for word in process.cmdline()):
                    return process
            except psutil.Error:
                continue
        return None

    def check_nothing_half_looks_whole(self) -> None:
        """Where there is a manifest, all that it names is there to the byte."""
        for folder in self.folders:
            if (folder / "manifest.json").exists():
                _ = Run(folder).files

    def check_whole(self, undisturbed: dict[str, str]) -> None:
        """The run is what it would have been, and nothing else is there.

        Args:
            undisturbed: see `outputs`.
        """
        assert self.outputs() == undisturbed
        assert self.processes() == []
        assert self.containers() == []
        left = [
            path.relative_to(self.project)
            for root in (self.project / "data" / "models", self.project / "data" / "cache")
            for path in root.rglob("*")
            if _is_temporary(path)
        ]
        assert left == []


def start_over(small: SmallRun) -> None:
    """Remove its runs."""
    shutil.rmtree(small.project / "data" / "models" / NAME, ignore_errors=True)


def _is_temporary(path: Path) -> bool:
    if path.name in (".work", "checkpoints") or path.name.endswith(".unfinished"):
        return True
    # What an atomic write leaves where it is cut off: the file's name in a hidden one.
    return path.is_file() and path.name.startswith(".") and path.name.count(".") >= 3


@pytest.fixture(scope="session")
@needs("trains")
def small(smoke_run, tmp_path_factory) -> SmallRun:
    """A clone that has the base and the environment, and no run yet."""
    project = bare_clone(smoke_run.project, tmp_path_factory.mktemp("faults") / "clone d'orage")
    rows = (project / "data" / "training" / "smoke.jsonl").read_text().splitlines(keepends=True)
    (project / _DATA).write_text("".join(rows[:_ROWS]))
    return SmallRun(project)


@dataclass(frozen=True)
class Undisturbed:
    """What the small run makes, how long it takes, and how large it is."""

    outputs: dict[str, str]
    seconds: float
    size_bytes: int


@pytest.fixture(scope="session")
@needs("trains")
def undisturbed(small) -> Undisturbed:
    """The run without a fault."""
    start_over(small)
    started_s = time.monotonic()
    done = small.train()
    assert done.returncode == 0, done.stderr
    took_s = time.monotonic() - started_s
    size_bytes = sum(path.stat().st_size for path in files_below(small.folder))
    found = Undisturbed(small.outputs(), took_s, size_bytes)
    small.check_whole(found.outputs)
    return found


@pytest.fixture(scope="session")
@needs("trains", "container")
def contained(small, undisturbed, tmp_path_factory) -> SmallRun:
    """The same run in containers, in another clone; undisturbed, it makes the same bytes there."""
    project = bare_clone(small.project, tmp_path_factory.mktemp("contained") / "clone d'orage")
    shutil.copy(small.project / _DATA, project / _DATA)
    environment = {"DOCKER_HOST": os.environ.get("DOCKER_HOST", "")}
    run = SmallRun(project, "docker", environment)
    done = run.train()
    assert done.returncode == 0, done.stderr
    run.check_whole(undisturbed.outputs)
    return run
