"""Make a Python environment from hash locks, with uv. Shared between clones by uv's cache."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from contract.atomic_write import atomic_write
from contract.child_environment import Purpose, child_environment
from contract.digest import digest_of_file
from contract.disk_space import check_disk_space
from contract.errors import UserError
from launcher.display import Display
from launcher.error_messages import remedy_in
from launcher.project import CACHE, lock_file, shown
from launcher.runtime.dependency_locks import python_version, uv
from launcher.runtime.exclusive_lock import exclusive_lock
from launcher.runtime.logged_process import run_logged

# Measured on the rtx lock: 5.0 GB installed, and the downloads beside it while they unpack.
_ENVIRONMENT_BYTES = 12 * 10**9
# Beside an environment that is whole: the digests of the locks that it was made from.
_MARKER = ".locks"


def ensure_environment(name: str, locks: Sequence[str], display: Display) -> Path:
    """The interpreter of the environment `name`, made or renewed where its locks changed.

    Raises:
        UserError: no disk space for it, or a package that cannot be had.
    """
    if (ready := _ready(locks)) is not None:
        return ready
    return ensure_locked(environment_folder(name), [lock_file(lock) for lock in locks], display)


def ensure_locked(folder: Path, lock_files: Sequence[Path], display: Display) -> Path:
    """The interpreter of the environment in a folder, made or renewed where its locks changed.

    Raises:
        UserError: no disk space for it, or a package that cannot be had.
    """
    # Another launcher may be making it. Beside it: the folder itself may be made anew.
    with exclusive_lock(folder.with_name(f".{folder.name}"), wait=True):
        return _made(folder, lock_files, display)


def has_environment(name: str, locks: Sequence[str]) -> bool:
    """Whether `ensure_environment` has nothing to make."""
    if _ready(locks) is not None:
        return True
    return _current(environment_folder(name), [lock_file(lock) for lock in locks])


def environment_folder(name: str) -> Path:
    """Where the environment `name` is that is made with this launcher's Python.

    One for each version: where a clone is mounted into a container that has another Python, the
    two launchers must not take each other's environment away, least of all under a training.
    """
    return CACHE / "environments" / f"{name}-{python_version()}"


def _made(folder: Path, locks: Sequence[Path], display: Display) -> Path:
    name = folder.name
    python = folder / "bin" / "python"
    marker = folder / _MARKER
    if _current(folder, locks):
        return python
    usable = _usable(folder)
    # Without the marker it is unfinished; it is written again when all is in place.
    marker.unlink(missing_ok=True)
    if not usable:
        check_space(folder.parent)
    with display.working(f"environment {name}", f"from {', '.join(lock.name for lock in locks)}"):
        log = CACHE / "logs" / f"environment-{name}.log"
        if not usable:
            shutil.rmtree(folder, ignore_errors=True)
            # The one that runs here: none is looked for elsewhere, and none is fetched.
            python_here = ["--no-python-downloads", "--python", sys.executable]
            _run([uv(), "venv", *python_here, str(folder)], log)
        _run(
            [uv(), "pip", "sync", "--require-hashes", "--no-build", "--python", str(python)]
            + [str(lock) for lock in locks],
            log,
        )
    atomic_write(marker, _digests(locks))
    return python


def _current(folder: Path, locks: Sequence[Path]) -> bool:
    marker = folder / _MARKER
    return _usable(folder) and marker.exists() and marker.read_bytes() == _digests(locks).encode()


def _usable(folder: Path) -> bool:
    # The interpreter is a link out of the environment: it may have become another one.
    here = folder / "lib" / f"python{python_version()}"
    return (folder / "bin" / "python").exists() and here.is_dir()


def _digests(locks: Sequence[Path]) -> str:
    return "".join(f"{lock.stem} {digest_of_file(lock)}\n" for lock in locks)


def _ready(locks: Sequence[str]) -> Path | None:
    """The interpreter of an environment that is there already, as in the devcontainer's image.

    It counts where the locks that lie in it are this project's.
    """
    given = os.environ.get("AFFINEUR_ENVIRONMENT")
    if not given:
        return None
    for lock in locks:
        there = Path(given) / "locks" / f"{lock}.lock"
        if not there.exists() or there.read_bytes() != lock_file(lock).read_bytes():
            return None
    return Path(given) / "bin" / "python"


def check_space(folder: Path) -> None:
    """See that the folder's disk has space for an environment.

    Raises:
        UserError: it has not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_disk_space(
        folder,
        _ENVIRONMENT_BYTES,
        where=shown(folder),
        purpose="making the environment takes up to",
        remedy="Free some space, or move data/cache to a larger disk and symlink it.",
    )


def _run(command: list[str], log: Path) -> None:
    if run_logged(command, log, environment=child_environment(Purpose.PACKAGES)):
        said = log.read_text(encoding="utf-8", errors="replace")
        last = " / ".join(said.strip().splitlines()[-3:])
        raise UserError.one(
            f"{shown(log)}",
            f"uv could not create the environment: {last}",
            remedy_in(said, "Check the network and run the same command again."),
        )
