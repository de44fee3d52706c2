"""The smoke run in containers against the same on this machine: what a container costs.

`./invoke bench container`, where a Docker engine answers. Both run in one scratch clone. An untimed
run of each makes what is made once (environments, image, base, llama.cpp's converters); after it
the two take turns, each run from an empty folder of models. What counts are the differences within
a pair: the figures themselves depend on the machine.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from contract.manifest import Manifest
from launcher.project import ROOT

_ROUNDS = 3
_ENGINES = ("local", "docker")
_GOAL_S = 5.0
_IN_ALL = "in all"
_MADE_HERE = {ROOT: {".venv", ".git", ".gpu_machine"}, ROOT / "data": {"models", "cache"}}


def clone(folder: Path) -> Path:
    """The project as it is now, without what ./invoke makes."""

    def made(place: str, entries: list[str]) -> set[str]:
        here = _MADE_HERE.get(Path(place), set()) | {"__pycache__"}
        return here & set(entries)

    return Path(shutil.copytree(ROOT, folder, ignore=made))


def train(project: Path, engine: str) -> dict[str, float]:
    """Seconds of each stage of one smoke run from nothing, and from the first word to the last."""
    shutil.rmtree(project / "data" / "models", ignore_errors=True)
    # A person's terminal: this benchmark's interpreter may have been told other things.
    environment = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
    command = ["./invoke", "train", "--profile", "smoke", "--quiet", "--engine", engine]
    started_s = time.monotonic()
    done = subprocess.run(
        [*command, "--ollama", "none"],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    taken_s = time.monotonic() - started_s
    if done.returncode:
        sys.exit(f"the smoke run with --engine {engine} exited with code {done.returncode}")
    manifest = Manifest.model_validate_json(
        (project / done.stdout.strip() / "manifest.json").read_bytes()
    )
    # The base is made once, before the clock starts.
    stages = {record.stage: record.seconds for record in manifest.stages if record.stage != "base"}
    return {**stages, _IN_ALL: taken_s}


def table(seconds: dict[str, list[dict[str, float]]]) -> Table:
    """Medians of both, their ratio, and the median of what the pairs differ by."""
    shown = Table("stage", box=None, pad_edge=False)
    for column in ("local", "docker", "ratio", "difference"):
        shown.add_column(column, justify="right")
    for name in seconds["local"][0]:
        local, docker = ([run[name] for run in seconds[engine]] for engine in _ENGINES)
        one, other = statistics.median(local), statistics.median(docker)
        shown.add_row(
            name,
            f"{one:.1f} s",
            f"{other:.1f} s",
            f"{other / one:.2f}",
            f"{difference_s(local, docker):+.1f} s",
        )
    return shown


def difference_s(local: list[float], docker: list[float]) -> float:
    """The median of what the pairs differ by."""
    return statistics.median(b - a for a, b in zip(local, docker, strict=True))


def main() -> None:
    """Make what is made once, run both in turn, print figures, ratios and differences."""
    console = Console(highlight=False)
    seconds: dict[str, list[dict[str, float]]] = {engine: [] for engine in _ENGINES}
    with tempfile.TemporaryDirectory() as scratch:
        project = clone(Path(scratch) / "clone")
        for engine in _ENGINES:
            train(project, engine)
        for number in range(_ROUNDS):
            # Each goes first in turn: a machine that warms up or slows down favours neither.
            for engine in _ENGINES if number % 2 == 0 else reversed(_ENGINES):
                seconds[engine].append(train(project, engine))
                taken_s = seconds[engine][-1][_IN_ALL]
                console.print(f"{number + 1} of {_ROUNDS}  {engine:<6}  {taken_s:6.1f} s")
    console.print(table(seconds))
    local, docker = ([run[_IN_ALL] for run in seconds[engine]] for engine in _ENGINES)
    console.print(
        f"a smoke run in containers takes {difference_s(local, docker):+.1f} s "
        f"(median of {_ROUNDS} pairs; goal: at most {_GOAL_S:.0f} s)",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
