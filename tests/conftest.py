"""Shared ground: a fresh copy of the project, one real smoke run in it, and what each test needs.

A fixture that is more than code says what it is by `@needs(...)`, and every test that uses it, by
however many others, bears that marker (see `[tool.pytest.ini_options]`). What bears none is run by
`./invoke test --fast`, in an environment where no training starts and no engine or server answers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from contract.base import BaseIdentity
from contract.manifest import Manifest
from contract.paths import METRICS, WORK
from launcher.display import Display
from launcher.evaluate.record import Evaluation
from launcher.project import ROOT, lock_file
from launcher.runtime import llama_cpp_sources
from launcher.runtime.exclusive_lock import exclusive_lock
from launcher.runtime.llama_cpp_tools import tools as compiled

MARKERS = {"trains", "compiles", "container", "serves", "browser", "gpu", "faults"}
# Everything in these needs what it is about.
_FOLDERS = {
    "container": "container",
    "serving": "serves",
    "browser": "browser",
    "gpu": "gpu",
    "faults": "faults",
}
Fixture = TypeVar("Fixture", bound=Callable[..., object])


def needs(*markers: str) -> Callable[[Fixture], Fixture]:
    """Says of a fixture, below `@pytest.fixture`, what the tests that use it bear."""

    def declare(fixture: Fixture) -> Fixture:
        fixture.needs = markers  # type: ignore[attr-defined]
        return fixture

    return declare


def pytest_configure() -> None:
    """Let Ctrl-C be heard, by what tests start as well: a shell's background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the markers of its fixtures; those that wait for a training come last."""
    for item in items:
        for folder, marker in _FOLDERS.items():
            if item.path.is_relative_to(ROOT / "tests" / folder):
                item.add_marker(marker)
        assert isinstance(item, pytest.Function)
        for fixtures in item._fixtureinfo.name2fixturedefs.values():
            for marker in getattr(fixtures[-1].func, "needs", ()):
                item.add_marker(marker)
    # Where two sessions share one run, each has other things to do while it is made.
    items.sort(key=lambda item: item.get_closest_marker("trains") is not None)


def needs_nothing(item: pytest.Item) -> bool:
    """Whether a test bears none of the markers."""
    return not any(marker.name in MARKERS for marker in item.iter_markers())


@pytest.fixture(scope="session")
def no_training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of the tests' own packages, as the devcontainer has it, that trains nothing.

    Every stage runs in it but those that train; what asks for one is written down.
    """
    folder = tmp_path_factory.mktemp("no-training")
    (folder / "locks").mkdir()
    for lock in ("host", "rtx", "t4", "tools"):
        shutil.copy(lock_file(lock), folder / "locks")
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(
        "#!/bin/sh\n"
        'case "$2" in\n'
        "trainer.train) trains=yes ;;\n"
        'trainer.base) if grep -q \'"kind": *"smoke"\' "$4/request.json"; then trains=yes; fi ;;\n'
        "esac\n"
        f'if [ "${{trains:-}}" ]; then echo "$2" >>\'{folder}/asked\'; exit 97; fi\n'
        f"exec '{sys.executable}' \"$@\"\n"
    )
    python.chmod(0o755)
    return folder


@pytest.fixture(autouse=True)
def nothing_to_train_with(request, monkeypatch):
    """What bears no marker meets no training, no engine and no server; if it asks, it fails."""
    if not needs_nothing(request.node):
        yield
        return
    folder = request.getfixturevalue("no_training")
    for name, value in {**NO_ENGINE, **NO_SERVER, "AFFINEUR_ENVIRONMENT": str(folder)}.items():
        monkeypatch.setenv(name, value)
    yield
    asked = folder / "asked"
    if asked.exists():
        stages = asked.read_text().split()
        asked.unlink()
        pytest.fail(
            f"it bears no marker and asks for {', '.join(stages)}: take a fixture that is one"
        )


_MADE = shutil.ignore_patterns(".venv*", ".git", ".gpu_machine", "__pycache__", ".*_cache")


def fresh_copy(folder: Path) -> Path:
    """The project as a stranger's clone has it: nothing of what ./invoke makes."""

    def made(place: str, entries: list[str]) -> set[str]:
        below_data = {"models", "cache", "reproduced"} if Path(place) == ROOT / "data" else set()
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
    # A llama-server with more threads than cores that are free takes many times as long.
    return {**kept, **NO_ENGINE, **NO_SERVER, "LLAMA_ARG_THREADS": "1", **more}


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


def start_training(project: Path, *words: str, **more: str) -> tuple[subprocess.Popen[str], Path]:
    """`start`, until the training has written its first metrics; and the run's folder."""
    # Those of a training that was cut off before.
    metrics_below = f"data/models/*/*/{WORK}/train/{METRICS}"
    for left in project.glob(metrics_below):
        left.unlink()
    process = start(project, *words, **more)
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        for metrics in project.glob(metrics_below):
            if metrics.stat().st_size:
                return process, metrics.parents[2]
        time.sleep(0.1)
    raise AssertionError("training did not start")


@dataclass(frozen=True)
class SmokeRun:
    """A finished `./invoke train --profile smoke` in a project of its own.

    `made_in` is the project that it ran in: another one, where sessions share the run.
    """

    project: Path
    folder: Path
    manifest: Manifest
    said: str
    shown: str
    made_in: Path

    @property
    def base(self) -> Path:
        """The smoke base's Hugging Face folder."""
        bases = (self.project / "data" / "cache" / "bases").glob("smoke-*/base.json")
        # Another lock makes another one beside it.
        return next(
            record.parent / "model"
            for record in bases
            if BaseIdentity.read(record).digest == self.manifest.base.digest
        )

    @property
    def llama_cpp(self) -> Path:
        """The converters that the run fetched."""
        folders = (self.project / "data" / "cache" / "llama.cpp").iterdir()
        return next(folder for folder in folders if not folder.name.startswith(("tools-", ".")))


def run_smoke(project: Path, *words: str, **more: str) -> SmokeRun:
    """Run the smoke profile to its end and read what it left."""
    done = invoke(project, "train", "--profile", "smoke", *words, **more)
    assert done.returncode == 0, done.stderr + done.stdout
    quiet = invoke(project, "train", "--profile", "smoke", "--quiet", *words, **more)
    folder = Path(quiet.stdout.strip())
    manifest = Manifest.read(folder / "manifest.json")
    return SmokeRun(project, folder, manifest, done.stderr, done.stdout, project)


@pytest.fixture(scope="session")
@needs("trains")
def smoke_run(tmp_path_factory) -> SmokeRun:
    """One real run, shared by all tests that look at its results and change nothing there.

    AFFINEUR_TEST_RUNS names a folder that several sessions share: the first makes the run in it,
    the others wait, and each works on a copy. What was changed since is brought up to date in the
    copy, as `./invoke train` always does.
    """
    # Spaces and accents in the path, because people have them.
    own = tmp_path_factory.mktemp("premier") / "clone d'été"
    if not (shared := os.environ.get("AFFINEUR_TEST_RUNS")):
        return run_smoke(fresh_copy(own))
    made_in = Path(shared).resolve() / "clone d'été"
    with exclusive_lock(made_in.with_name(f".{made_in.name}"), wait=True):
        if not any(made_in.glob("data/models/*/*/manifest.json")):
            shutil.rmtree(made_in, ignore_errors=True)
            run_smoke(fresh_copy(made_in))
    return replace(run_smoke(clone_with_run(made_in, own)), made_in=made_in)


def clone_with_run(project: Path, folder: Path) -> Path:
    """A clone with the environment, the cache and the finished runs of another."""
    clone = bare_clone(project, folder)
    shutil.copytree(project / "data" / "models", clone / "data" / "models")
    return clone


def bare_clone(project: Path, folder: Path) -> Path:
    """A clone with the environment and the cache of another, and no run."""
    clone = fresh_copy(folder)
    (clone / ".venv").symlink_to(project / ".venv")
    (clone / "data" / "cache").symlink_to(project / "data" / "cache")
    return clone


@pytest.fixture(scope="session")
@needs("compiles")
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
@needs("trains", "compiles")
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
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke base before its training: its tokenizer, its shape, and weights of a seed."""
    from trainer.base.smoke import new_model, reproducible_arithmetic, write_model, write_tokenizer

    folder = tmp_path_factory.mktemp("untrained")
    write_tokenizer(folder)
    with reproducible_arithmetic():
        write_model(new_model(), folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(untrained):
    """The smoke base's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(untrained)


@pytest.fixture
def with_template(tokenizer):
    """The tokenizer with another template, as long as the test lasts."""
    own = tokenizer.chat_template

    def change(template):
        tokenizer.chat_template = template
        return tokenizer

    yield change
    tokenizer.chat_template = own


@pytest.fixture(scope="session")
def llama_cpp() -> Path:
    """llama.cpp's converters, fetched once."""
    return llama_cpp_sources.llama_cpp(Display(quiet=True))


@pytest.fixture(scope="session")
def plain_project(tmp_path_factory) -> Path:
    """A clone without a run, for what trains nothing."""
    return fresh_copy(tmp_path_factory.mktemp("plain") / "clone d'hiver")


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
    process = start_stage(module, *flags)
    output, log = process.communicate()
    return process.returncode, [json.loads(line) for line in output.splitlines()], log


def start_stage(module: str, *flags: str) -> subprocess.Popen[str]:
    """Start one stage's module as an engine does."""
    given = os.environ.get("AFFINEUR_ENVIRONMENT")
    # For llama.cpp's tools: see `clean_environment`.
    own = {"PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1", "LLAMA_ARG_THREADS": "1"}
    python = Path(given) / "bin" / "python" if given else sys.executable
    return subprocess.Popen(
        [python, "-m", module, *flags],
        cwd=ROOT,
        env={**os.environ, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
