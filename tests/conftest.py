"""Shared ground: a fresh copy of the project, and one real smoke run in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.manifest import Manifest
from launcher.display import Display
from launcher.evaluate.record import Evaluation
from launcher.project import ROOT
from launcher.runtime.llama_cpp_tools import tools as compiled

_MADE = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache")


def fresh_copy(folder: Path) -> Path:
    """The project as a stranger's clone has it: nothing of what ./invoke makes."""

    def made(place: str, entries: list[str]) -> set[str]:
        below_data = {"models", "cache"} if Path(place) == ROOT / "data" else set()
        return set(_MADE(place, entries)) | below_data

    shutil.copytree(ROOT, folder, ignore=made)
    return folder


# A machine without an engine and without Ollama, whatever this one has; tests/container and
# tests/serving say otherwise.
NO_ENGINE = {"DOCKER_HOST": "unix:///no/engine.sock"}
NO_SERVER = {"OLLAMA_HOST": "127.0.0.1:9"}


def clean_environment(**more: str) -> dict[str, str]:
    """A person's terminal: it knows nothing of the tests' environment."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "PYTHON", "VIRTUAL_ENV", "OLLAMA"))
    }
    return {**kept, **NO_ENGINE, **NO_SERVER, **more}


def invoke(project: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `./invoke words...` in the project as a person would, with its output as text."""
    return subprocess.run(
        [str(project / "invoke"), *words],
        cwd=project,
        env=clean_environment(**more),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def start(project: Path, *words: str, **more: str) -> subprocess.Popen[str]:
    """`./invoke train --profile smoke words...` in a session of its own, not waited for."""
    return begin(project, "train", "--profile", "smoke", *words, **more)


def begin(project: Path, *words: str, **more: str) -> subprocess.Popen[str]:
    """`./invoke words...` in a session of its own, not waited for."""
    return subprocess.Popen(
        [str(project / "invoke"), *words],
        cwd=project,
        env=clean_environment(**more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_training(project, process):
    """Until the training has written its first metrics."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        metrics = list((project / "data" / "models").glob("*/*/metrics.jsonl"))
        if metrics and metrics[0].stat().st_size:
            return metrics[0].parent
        time.sleep(0.2)
    raise AssertionError("training did not start")


@dataclass(frozen=True)
class SmokeRun:
    """A finished `./invoke train --profile smoke` in a project of its own."""

    project: Path
    folder: Path
    manifest: Manifest
    said: str
    shown: str

    @property
    def base(self) -> Path:
        """The smoke base's Hugging Face folder."""
        return next((self.project / "data" / "cache" / "bases").glob("smoke-*")) / "model"

    @property
    def llama_cpp(self) -> Path:
        """The converters that the run fetched."""
        folders = (self.project / "data" / "cache" / "llama.cpp").iterdir()
        return next(folder for folder in folders if not folder.name.startswith("tools-"))


def run_smoke(project: Path, *words: str, **more: str) -> SmokeRun:
    """Run the smoke profile to its end and read what it left."""
    done = invoke(project, "train", "--profile", "smoke", *words, **more)
    assert done.returncode == 0, done.stderr + done.stdout
    quiet = invoke(project, "train", "--profile", "smoke", "--quiet", *words, **more)
    folder = Path(quiet.stdout.strip())
    manifest = Manifest.read(folder / "manifest.json")
    return SmokeRun(project, folder, manifest, done.stderr, done.stdout)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> SmokeRun:
    """One real run, shared by all tests that look at its results and change nothing there."""
    # Spaces and accents in the path, because people have them.
    return run_smoke(fresh_copy(tmp_path_factory.mktemp("premier") / "clone d'été"))


@pytest.fixture(scope="session")
def tools() -> Path:
    """llama.cpp's tools, compiled once into this project's own cache (minutes, the first time)."""
    return compiled(Display(quiet=True))


def lend_tools(project: Path, tools: Path) -> None:
    """Put the compiled tools into another clone's cache."""
    place = project / "data" / "cache" / "llama.cpp" / tools.name
    if not place.exists():
        place.symlink_to(tools)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which model the tests in performance/ and regression/ are about."""
    group = parser.getgroup("affineur")
    group.addoption("--model", help="a served model (default: the smoke run's, by llama-server)")
    group.addoption("--base", help="a served model to compare with (default: its run's own base)")


@pytest.fixture(scope="session")
def evaluation(request) -> Evaluation:
    """`./invoke evaluate` of the model that was named, or of the smoke run's."""
    model, base = request.config.getoption("--model"), request.config.getoption("--base")
    words = ["evaluate", "--quiet", *(["--base", base] if base else [])]
    if model:
        here = {name: os.environ.get(name, "") for name in ("OLLAMA_HOST", "DOCKER_HOST")}
        done = invoke(ROOT, *words, "--model", model, **here)
    else:
        run = request.getfixturevalue("smoke_run")
        lend_tools(run.project, request.getfixturevalue("tools"))
        done = invoke(run.project, *words, "--model", "affineur-smoke", "--ollama", "none")
    assert done.returncode == 0, done.stderr
    return Evaluation.read(Path(done.stdout.strip()))


@pytest.fixture(scope="session")
def tokenizer(smoke_run):
    """The smoke base's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smoke_run.base)


@pytest.fixture
def run_copy(smoke_run, tmp_path) -> Path:
    """A copy of the smoke run's folder, to be spoiled."""
    return Path(shutil.copytree(smoke_run.folder, tmp_path / "run"))


def apart(code: str, *words: object) -> None:
    """Run a piece of Python in a process of its own, with the words as its `sys.argv[1:]`.

    llama.cpp's converters bring their own `gguf`, which must not meet the tests'.
    """
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nfrom pathlib import Path\n{code}", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def stage(module: str, *flags: str) -> tuple[int, list[dict], str]:
    """Run one stage's module as an engine does: its exit code, its events, its log."""
    done = subprocess.run(
        [sys.executable, "-m", module, *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr
