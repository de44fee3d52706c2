"""The project's own checks: what they look at, what they pass on, and how they are stopped."""

import os
import signal
import subprocess
import sys
import time

import pytest

from contract.errors import UserError
from launcher.cli import checks
from launcher.cli.checks import shell_scripts
from launcher.project import ROOT


def test_shell_scripts_are_found_by_their_first_line(tmp_path):
    (tmp_path / ".ci").mkdir()
    for name, first_line in {
        "plain": "#!/bin/sh",
        ".ci/bash": "#!/usr/bin/env bash",
        ".ci/strict": "#!/bin/bash -eu",
        ".ci/python": "#!/usr/bin/env python3",
        "fish": "#!/usr/bin/fish",
        "notes.md": "a bash for every sh",
        "empty": "",
    }.items():
        (tmp_path / name).write_text(first_line + "\n")
    (tmp_path / "binary").write_bytes(b"\xff\x00#!/bin/sh")
    assert shell_scripts(tmp_path) == [".ci/bash", ".ci/strict", "plain"]


def test_the_projects_own_scripts_are_among_them():
    assert {"invoke", ".ci/run", ".ci/engine", ".ci/ollama"} <= set(shell_scripts(ROOT))


def test_a_benchmark_is_given_its_own_arguments_as_a_shell_would(monkeypatch):
    started = []
    monkeypatch.setattr(checks, "_test_environment", lambda: "python")
    monkeypatch.setattr(checks, "run_tool", started.append)
    checks.bench("train", "--only 'trl sft' --rounds 1")
    checks.bench("merge", "")
    assert started[0][1:] == ["-m", "benchmarks.train", "--only", "trl sft", "--rounds", "1"]
    assert started[1][1:] == ["-m", "benchmarks.merge"]


def test_an_open_quote_in_a_benchmarks_arguments_is_refused():
    with pytest.raises(UserError, match="No closing quotation"):
        checks.bench("train", "--only 'trl")


_SLOW_TO_STOP = """
import time
print("begun", flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(1.5)
    print("what there is so far", flush=True)
"""


def test_what_is_stopped_by_ctrl_c_has_time_to_print():
    code = (
        "import sys\n"
        "from launcher.cli import checks\n"
        "from launcher.error_messages import exit_on_error\n"
        "with exit_on_error(lambda text, code: SystemExit(code)):\n"
        f"    checks.run_tool([sys.executable, '-c', {_SLOW_TO_STOP!r}])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    # The child is inside its `try` by now, or is so in a moment.
    time.sleep(0.5)
    # As a terminal does: to all that were started from it.
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate()
    assert rest == "what there is so far\n"
    assert process.returncode == 130
