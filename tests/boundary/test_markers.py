"""A test that bears no marker trains nothing: it fails where it tries."""

import os
import subprocess
import sys

from launcher.project import ROOT

TRIES = """
from tests.conftest import invoke, stage

def test_by_the_launcher(plain_project, tmp_path):
    # No base of another clone: it would be made.
    invoke(plain_project, "train", "--profile", "smoke", XDG_CACHE_HOME=str(tmp_path))

def test_by_a_stage(tmp_path):
    stage("trainer.train", "--run", str(tmp_path))

def test_by_neither(plain_project):
    invoke(plain_project, "plan", "--profile", "smoke")
"""


def test_what_bears_no_marker_and_trains_fails(tmp_path):
    (tmp_path / "test_tries.py").write_text(TRIES)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", str(tmp_path)]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed, 2 errors" in done.stdout, done.stdout
    assert "it bears no marker and asks for trainer.base" in done.stdout
    assert "it bears no marker and asks for trainer.train" in done.stdout
