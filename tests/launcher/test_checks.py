"""The project's own checks: what they look at."""

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
