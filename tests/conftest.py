"""Shared ground: a fresh copy of the project, and one real smoke run in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.project import ROOT
from trainer.contract.manifest import Manifest

_MADE = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache")


def fresh_copy(folder: Path) -> Path:
    """The project as a stranger's clone has it: nothing of what ./invoke makes."""

    def made(place: str, entries: list[str]) -> set[str]:
        below_data = {"models", "cache"} if Path(place) == ROOT / "data" else set()
        return set(_MADE(place, entries)) | below_data

    shutil.copytree(ROOT, folder, ignore=made)
    return folder


def invoke(project: Path, *words: str, **more) -> subprocess.CompletedProcess[str]:
    """Run `./invoke words...` in the project as a person would, with its output as text."""
    # A person's terminal knows nothing of the tests' environment.
    surroundings = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "PYTHON", "VIRTUAL_ENV", "OLLAMA"))
    }
    return subprocess.run(
        [str(project / "invoke"), *words],
        cwd=project,
        env={**surroundings, **more},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


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
        return next((self.project / "data" / "cache" / "llama.cpp").iterdir())


def run_smoke(project: Path, *words: str) -> SmokeRun:
    """Run the smoke profile to its end and read what it left."""
    done = invoke(project, "train", "--profile", "smoke", *words)
    assert done.returncode == 0, done.stderr + done.stdout
    quiet = invoke(project, "train", "--profile", "smoke", "--quiet", *words)
    folder = Path(quiet.stdout.strip())
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    return SmokeRun(project, folder, manifest, done.stderr, done.stdout)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> SmokeRun:
    """One real run, shared by all tests that look at its results and change nothing there."""
    # Spaces and accents in the path, because people have them.
    return run_smoke(fresh_copy(tmp_path_factory.mktemp("premier") / "clone d'été"))


@pytest.fixture(scope="session")
def tokenizer(smoke_run):
    """The smoke base's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smoke_run.base)


@pytest.fixture
def run_copy(smoke_run, tmp_path) -> Path:
    """A copy of the smoke run's folder, to be spoiled."""
    return Path(shutil.copytree(smoke_run.folder, tmp_path / "run"))


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
