"""What `./invoke plan` says of the stages around the training, beside the memory they take.

`./invoke bench stage_memory --args "--profile smoke"`: a run on this machine, without Ollama. While
it lasts, the memory of each stage's processes is added up every 20 ms, pages that several share
divided among them (`Pss`); the largest sum is the stage's peak. Each command uses another seed, so
that no stage is up to date; all other words are those of `./invoke train`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rich.table import Table

from contract.model_shape import ModelShape
from contract.run_estimate import stage_memory
from launcher.configuration import resolve
from launcher.display import terminal
from launcher.pipeline.bases import CachedBase, find_base
from launcher.project import ROOT

_INTERVAL_S = 0.02
_STAGES = ("merge", "convert", "quantize", "reference")
_PSS = re.compile(r"^Pss: +(\d+) kB$", re.MULTILINE)
_MODULE = re.compile(rb"\0-m\0trainer\.(\w+)\0")


def _sessions() -> Iterator[tuple[int, Path]]:
    """The processes of this machine, each with the session that it belongs to."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            session = (folder / "stat").read_text().rpartition(")")[2].split()[3]
            yield int(session), folder


def _stage_of(session: int) -> str | None:
    with suppress(OSError):
        found = _MODULE.search(Path(f"/proc/{session}/cmdline").read_bytes())
        return found[1].decode() if found else None
    return None


def _own_bytes(folder: Path) -> int:
    with suppress(OSError):
        found = _PSS.search((folder / "smaps_rollup").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0


def peaks_of(command: Sequence[str]) -> dict[str, int]:
    """Run a training, and return the peak of each stage, in bytes, by the stage's name.

    Every stage leads a session of its own, in which what it starts stays.

    Raises:
        CalledProcessError: the training failed.
    """
    peaks: dict[str, int] = {}
    with subprocess.Popen(command, cwd=ROOT) as process:
        while process.poll() is None:
            sums: dict[str, int] = {}
            for session, folder in _sessions():
                if stage := _stage_of(session):
                    sums[stage] = sums.get(stage, 0) + _own_bytes(folder)
            for stage, size_bytes in sums.items():
                peaks[stage] = max(peaks.get(stage, 0), size_bytes)
            time.sleep(_INTERVAL_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peaks


def main(words: Sequence[str]) -> None:
    """Train, and print a line for each stage."""
    seed = ["--set", f"seed={int(time.time())}"]
    command = ["./invoke", "train", "--engine", "local", "--ollama", "none", "--quiet"]
    peaks = peaks_of([*command, *words, *seed])
    profile = words[words.index("--profile") + 1] if "--profile" in words else "cpu"
    given = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    recipe = resolve(profile, settings=[*given, seed[1]])
    found = find_base(recipe.model_to_fine_tune, recipe.model_revision, "rtx")
    assert isinstance(found, CachedBase)
    found.take()
    shape = ModelShape.read(found.model)
    assert shape is not None
    table = Table("stage", box=None, pad_edge=False)
    for column in ("estimate", "peak", "ratio"):
        table.add_column(column, justify="right")
    for name, size_bytes, _ in stage_memory(shape, recipe):
        if name in peaks:
            table.add_row(
                name,
                f"{size_bytes / 1e9:.2f} GB",
                f"{peaks[name] / 1e9:.2f} GB",
                f"{size_bytes / peaks[name]:.2f}",
            )
    terminal().print(table)
    if missing := [name for name in _STAGES if name not in peaks]:
        print(f"not measured: {', '.join(missing)}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
