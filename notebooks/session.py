"""What a notebook needs beside `./invoke`: its output in the cell, and a copy of what it trains
where a session that ends does not reach it.

For the notebook's own Python: the standard library, and `google.colab` where that is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO

_DRIVE = Path("/content/drive")
_WORK = ".work"
_TRAINING = "train"
# Large, and made anew from the adapter in minutes; and what is not finished.
_LEFT_OUT = {"merged", "gguf", "evaluation"}
_UNFINISHED = ".unfinished"
_COPIED_EVERY_S = 120.0
# Kernels set them, and a command would take a cell for a terminal and redraw its lines.
_COLOURS = ("FORCE_COLOR", "CLICOLOR_FORCE")


class CommandError(Exception):
    """A command ended with another exit code than 0."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: where the notebook called it helps nobody."""
        return [str(self)]


def colab(name: str) -> ModuleType | None:
    """Colab's own module of this name (`files`, `drive`); None anywhere else."""
    try:
        return import_module(f"google.colab.{name}")
    except ImportError:
        return None


def invoke(*words: str) -> str:
    """Run `./invoke words...` in the current folder, show what it says, and return its output.

    Not by a line with `!`, after whose failure a notebook would go on. Interrupting the cell is a
    Ctrl-C: notebooks signal the whole process group, so the command hears it, and the cell waits
    until it has ended in good order.

    Raises:
        CommandError: it ended with another exit code than 0.
    """
    process = subprocess.Popen(
        ["./invoke", *words],
        env={name: value for name, value in os.environ.items() if name not in _COLOURS},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    readers = [
        threading.Thread(target=_show, args=(process.stdout, said)),
        threading.Thread(target=_show, args=(process.stderr, [])),
    ]
    for reader in readers:
        reader.start()
    stopped = False
    while any(reader.is_alive() for reader in readers):
        try:
            for reader in readers:
                reader.join()
        except KeyboardInterrupt:
            stopped = True
    if code := process.wait():
        how = "was stopped; run the cell again to go on" if stopped else f"ended with {code}"
        raise CommandError(f"./invoke {words[0]} {how}. What it said stands above.")
    return "".join(said)


def _show(stream: IO[str], said: list[str]) -> None:
    for line in stream:
        print(line, end="", flush=True)
        said.append(line)


def mount(folder: str) -> Path | None:
    """The folder where trainings are kept; where it is on Google Drive, that is mounted first.

    None where no folder is named. Colab asks for permission.
    """
    if not folder:
        return None
    drive = colab("drive")
    if drive is not None and Path(folder).is_relative_to(_DRIVE):
        drive.mount(str(_DRIVE))
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


@contextmanager
def kept(models: Path, place: Path | None, every_s: float = _COPIED_EVERY_S) -> Iterator[None]:
    """Bring back what earlier sessions left in `place`, and copy there what is trained meanwhile.

    Every two minutes and at the end, whatever the end is: the adapter, the checkpoints of a
    training that is not done, and the records of both; not the merged model and the GGUF files,
    which are made from them. Drive itself is no place to train in: it has no symbolic links.

    Args:
        models: `data/models` of the clone.
        place: None: nothing is kept.
    """
    if place is None:
        yield
        return
    # Below the folder that was named: packages may lie in it as well.
    copy = KeptCopy(models, place / models.name)
    copy.bring_back()
    ended = threading.Event()

    def copy_now_and_then() -> None:
        while not ended.wait(every_s):
            copy.update()

    copying = threading.Thread(target=copy_now_and_then, daemon=True)
    copying.start()
    try:
        yield
    finally:
        ended.set()
        copying.join()
        copy.update()


class KeptCopy:
    """A copy of `data/models` in another folder, without what is made from the adapter."""

    def __init__(self, models: Path, place: Path) -> None:
        self._models = models
        self._place = place
        # What was copied already: size, time and inode of the file here. The place's own times say
        # nothing, as Drive's are those of the upload.
        self._copied: dict[Path, tuple[int, int, int]] = {}

    def bring_back(self) -> None:
        """Copy from the place what is not here."""
        for name in _kept_files(self._place):
            target = self._models / name
            if not target.exists():
                _copy(self._place / name, target)
                self._copied[name] = _stamp(target)

    def update(self) -> None:
        """Copy to the place what is new here, and then remove the checkpoints that are gone here.

        What fails is said and not raised: the training is worth more than its copy.
        """
        try:
            self._update()
        except OSError as error:
            print(f"could not be copied to {self._place}: {error}", flush=True)

    def _update(self) -> None:
        here = list(_kept_files(self._models))
        for name in here:
            # A checkpoint may be replaced by the next one meanwhile.
            with suppress(FileNotFoundError):
                stamp = _stamp(self._models / name)
                if self._copied.get(name) != stamp:
                    _copy(self._models / name, self._place / name)
                    self._copied[name] = stamp
        # Last: until the new ones are whole, the old ones are what there is. Nothing else goes.
        for name in set(_kept_files(self._place)) - set(here):
            if _WORK in name.parts:
                (self._place / name).unlink(missing_ok=True)
                _remove_if_empty((self._place / name).parent)


def _kept_files(models: Path) -> Iterator[Path]:
    """The files that are kept, relative to `models`."""
    for folder, folders, files in os.walk(models):
        folders[:] = [name for name in folders if _is_kept(Path(folder).name, name)]
        for name in files:
            path = Path(folder, name)
            # Locks, and what is being written.
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path.relative_to(models)


def _is_kept(folder: str, name: str) -> bool:
    """Whether a folder is kept, by its own name and that of the one that it is in."""
    if folder == _WORK:
        return name == _TRAINING
    if name.startswith("."):
        return name == _WORK
    return name not in _LEFT_OUT and not name.endswith(_UNFINISHED)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        while _WORK in folder.parts:
            folder.rmdir()
            folder = folder.parent


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _copy(file: Path, target: Path) -> None:
    """Copy a file so that nobody finds a part of it under its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(file, partial)
    partial.replace(target)
