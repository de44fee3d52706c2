"""One file of all that an application needs of a run: its model as Ollama takes it, its adapter,
and what says how it was made.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from contract import paths
from contract.atomic_write import atomic_writer
from contract.disk_space import check_disk_space
from contract.events import Progress
from launcher.display import Display, StageLine
from launcher.pipeline.finished_run import Run
from launcher.project import PACKAGES, check_new, shown

# A package of the same files is the same file: their own dates say nothing.
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
_PIECE_BYTES = 1 << 20
# Names, sizes and checksums, twice.
_OVERHEAD_BYTES = 1 << 16


def default_package(run: Run) -> Path:
    """`data/packages/<model>-<run>.zip`."""
    return PACKAGES / f"{package_name(run)}.zip"


def write_package(run: Run, target: Path, display: Display) -> None:
    """Write the run's package: a zip of one folder, from which `ollama create` makes the model.

    Nothing in it is compressed: weights are not made smaller by it, and what compresses differs
    from machine to machine.

    Raises:
        UserError: a file is not what the run made, or the disk has no room.
    """
    files = packaged_files(run)
    total_bytes = check_space(run, files, target)
    with (
        display.working("package", shown(target)) as line,
        atomic_writer(target) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as package,
    ):
        done_bytes = 0
        for name in files:
            entry = zipfile.ZipInfo(f"{package_name(run)}/{name}", _DATE)
            entry.external_attr = _MODE
            with (
                (run.folder / name).open("rb") as source,
                package.open(entry, "w", force_zip64=True) as part,
            ):
                done_bytes = copy(source, part, line, done_bytes, total_bytes)


def check_target(target: Path) -> None:
    """See that a place that a person chose for a package is free.

    Raises:
        UserError: something is there, or its folder is not.
    """
    check_new(target, "--output", "Delete it, or choose another name.")


def package_name(run: Run) -> str:
    """`<model>-<run>`."""
    return f"{run.folder.parent.name}-{run.name}"


def check_space(run: Run, files: Sequence[str], target: Path) -> int:
    """See that the disk has space for a package of these files, and return their bytes.

    Raises:
        UserError: it has not.
    """
    total_bytes = sum((run.folder / name).stat().st_size for name in files)
    target.parent.mkdir(parents=True, exist_ok=True)
    check_disk_space(
        target.parent,
        total_bytes + _OVERHEAD_BYTES,
        where=shown(target.parent),
        purpose="the package takes",
        remedy="Free some space, or choose another place: --output PATH.",
    )
    return total_bytes


def packaged_files(run: Run) -> list[str]:
    """What goes into it, relative to the run's folder; compared with what the run made.

    Raises:
        UserError: a file is not there, or is not what the run made.
    """
    served = {Path(name) for name in (run.serving.gguf, run.serving.adapter) if name is not None}
    made = run.outputs_below(paths.ADAPTER, paths.MODELFILE, paths.SERVING, *served)
    run.check_made(made)
    told = (paths.MANIFEST, paths.METRICS, paths.EVALUATION, paths.CARD)
    return sorted({*made, *(str(name) for name in told if (run.folder / name).is_file())})


def copy(
    source: IO[bytes],
    part: IO[bytes],
    line: StageLine,
    done_bytes: int,
    total_bytes: int,
    on_piece: Callable[[bytes], object] = lambda _: None,
) -> int:
    """Copy one of the files, each piece told as it goes; return how much is done of all files."""
    while piece := source.read(_PIECE_BYTES):
        part.write(piece)
        on_piece(piece)
        done_bytes += len(piece)
        done, total = round(done_bytes / 1e6), round(total_bytes / 1e6)
        line.on_event(Progress(doing="packing", done=done, total=total, unit="MB"))
    return done_bytes
