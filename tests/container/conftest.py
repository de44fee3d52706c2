"""A real engine, and probes: pieces of Python in place of a stage, in the very same container.

Everything in this folder fails without an engine; see CONTRIBUTING.md. Run by
`./invoke test --container`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.events import Result
from contract.paths import WORK
from launcher.display import Display
from launcher.project import ROOT, lock_file
from launcher.runtime import images
from launcher.runtime.docker_engine import DockerEngine
from launcher.runtime.engine import Job, Mount
from tests.conftest import fresh_copy, needs

QUIET = Display(quiet=True)
# For `invoke`, which otherwise shows a machine without an engine.
ENGINE = {"DOCKER_HOST": os.environ.get("DOCKER_HOST", "")}

_PREAMBLE = """
import json, os, socket, subprocess, sys, time
def launch():
    return json.loads(sys.stdin.readline())
def say(**values):
    print(json.dumps({'event': 'result', 'values': values}), flush=True)
def refused(attempt):
    try:
        attempt()
    except OSError as error:
        return type(error).__name__ + ' ' + str(error.errno)
    return 'allowed'
"""


@dataclass(frozen=True)
class Probe(Job):
    """A job that runs a piece of Python in place of a stage."""

    code: str = ""

    def command(self):
        return ["python", "-c", self.code]


@pytest.fixture(scope="session")
@needs("container")
def engine():
    return DockerEngine()


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "un dossier d'été"
    folder.mkdir()
    return folder


def probe(engine, run, code, *, lock="rtx", mounts=(), **more):
    """The values that the code reports from inside, and how its container ended."""
    values = {}

    def on_event(event):
        if isinstance(event, Result):
            values.update(event.values)

    job = probe_job(engine, run, code, lock=lock, mounts=mounts, **more)
    return values, engine.run(job, on_event, QUIET)


def probe_job(engine, run, code, *, lock="rtx", mounts=(), **more):
    """A job that runs the code in the lock's image, with a folder that it may write to."""
    # As a stage has it: below its run's folder.
    out = written(run)
    out.mkdir(parents=True, exist_ok=True)
    image = engine.image(lock, QUIET, exporter=more.get("exporter", False)).digest
    return Probe(
        module="trainer.probe",
        lock=lock,
        mounts=(Mount("run", run), Mount("out", out, writable=True), *mounts),
        log=run / "log",
        code=_PREAMBLE + code,
        **{"image": image, **more},
    )


def written(run):
    """The folder that the code of a probe may write to."""
    return run / WORK / "probe"


def ours(engine):
    """The containers of this project, running or not."""
    return engine._client.containers.list(all=True, filters={"label": "dev.affineur.stage"})


@pytest.fixture
def small_project(tmp_path, engine):
    """A copy of the project whose lock `rtx` has a few small packages: its image takes seconds.

    All else is the real thing: Dockerfile, bake file, command.
    """
    image = engine._find(images.tag("rtx"))
    if image is not None:
        # Without a name of its own, containerd's store drops it when the tag moves on.
        image.tag("affineur/kept", "rtx")
    project = fresh_copy(tmp_path / "petit projet é")
    if (ROOT / ".venv").exists():
        (project / ".venv").symlink_to(ROOT / ".venv")
    shutil.copy(lock_file("check"), project / "docker" / "locks" / "rtx.lock")
    yield Path(project)
    if image is not None:
        image.tag("affineur/trainer", "rtx")
        engine._client.images.remove("affineur/kept:rtx")
