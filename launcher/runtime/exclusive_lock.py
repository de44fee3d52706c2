"""Hold a folder against other launchers, for as long as the work on it lasts.

The lock belongs to an open file, and whatever works in the folder is given that file as well
(`held_descriptors`): where a launcher is killed, the folder stays held until its worker has ended.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.errors import UserError
from launcher.project import shown

LOCK_FILE = ".lock"
# A worker whose launcher was killed stops by itself; it may have something to save first.
_ORPHANS_TIME_S = 10.0
_ASKED_EVERY_S = 0.1


class _Holder(BaseModel):
    """What stands in the lock file: the folder's own name for good, and who took the lock last."""

    model_config = ConfigDict(frozen=True)

    folder: str
    process: int
    process_namespace: str


@dataclass(frozen=True)
class _HeldLock:
    descriptor: int
    identity: str


_held: list[_HeldLock] = []


@contextmanager
def exclusive_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder, by a lock file in it, for as long as the block and what it started lasts.

    Args:
        wait: for another launcher that holds it, instead of refusing.

    Raises:
        UserError: another launcher, or what it left running, holds it and is not waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(folder, wait=wait)
    try:
        held = _HeldLock(descriptor, _identity(descriptor))
        _held.append(held)
        try:
            yield
        finally:
            _held.remove(held)
    finally:
        os.close(descriptor)


def held_descriptors() -> tuple[int, ...]:
    """The open files of all locks that this process holds, for `pass_fds` of what works for it."""
    return tuple(held.descriptor for held in _held)


def held_identities() -> frozenset[str]:
    """A name for each folder that this process holds: the same at every start, and no other's.

    A copy of the folder has another one, and so has a new folder of the same path.
    """
    return frozenset(held.identity for held in _held)


def _locked(folder: Path, *, wait: bool) -> int:
    path = folder / LOCK_FILE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _acquire(descriptor, folder, wait=wait)
            # The folder may have been made anew while this one was waited for.
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    return descriptor
            folder.mkdir(parents=True, exist_ok=True)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _acquire(descriptor: int, folder: Path, *, wait: bool) -> None:
    if wait:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + _ORPHANS_TIME_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            launcher, orphans = _who_holds(descriptor)
        if not orphans or time.monotonic() > deadline:
            raise _in_use(folder, launcher, orphans)
        time.sleep(_ASKED_EVERY_S)


def _in_use(folder: Path, launcher: int | None, orphans: list[int]) -> UserError:
    if orphans:
        processes = " ".join(map(str, orphans))
        return UserError.one(
            shown(folder),
            "is in use by another run, whose launcher was killed and whose stage is still running "
            f"(process {processes})",
            f"It stops as soon as it can: wait for it, or end it: kill -9 {processes}.",
        )
    by = f" (process {launcher})" if launcher else ""
    return UserError.one(shown(folder), f"is in use by another run{by}", "Wait for it, or stop it.")


def _who_holds(descriptor: int) -> tuple[int | None, list[int]]:
    """The launcher that holds the lock, or what is left of one that is dead; as far as it shows.

    Another user's processes do not, nor do those of another container.
    """
    taken = _read(descriptor)
    holders = _holders(descriptor)
    if taken is None or taken.process_namespace != _process_namespace() or not holders:
        return None, []
    return (taken.process, []) if taken.process in holders else (None, holders)


def _holders(descriptor: int) -> list[int]:
    """The processes that have the lock's open file, and not merely the same file."""
    wanted = os.fstat(descriptor)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for link in (process / "fd").iterdir():
                # A descriptor may be closed while it is looked at.
                with suppress(OSError):
                    if not os.path.samestat(link.stat(), wanted):
                        continue
                    if "FLOCK" in (process / "fdinfo" / link.name).read_text():
                        found.append(int(process.name))
    return sorted(set(found))


def _identity(descriptor: int) -> str:
    """The folder's name, with what a copy of its lock file has not: device and inode."""
    before = _read(descriptor)
    taken = _Holder(
        folder=before.folder if before else secrets.token_hex(8),
        process=os.getpid(),
        process_namespace=_process_namespace(),
    )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, taken.model_dump_json().encode(), 0)
    status = os.fstat(descriptor)
    return f"{status.st_dev:x}-{status.st_ino:x}-{taken.folder}"


def _read(descriptor: int) -> _Holder | None:
    with suppress(ValidationError):
        return _Holder.model_validate_json(os.pread(descriptor, 4096, 0))
    return None


def _process_namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""
