"""Folders that are made once: in this clone's cache, and shared by this user's clones.

One way for all of them: a folder is made beside its place, under a lock, gets a marker with the
digest of every file last, and is renamed. Whoever reads believes a folder that holds what its
marker names, and no other: what was cut off, truncated or edited is made again.

A shared entry is named after the digest of all that decides it, and is copied, never linked: an
edit in one clone's cache reaches no other.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from contract.digest import digest_of_file, files_below
from contract.record import Record
from launcher.runtime.exclusive_lock import exclusive_lock
from launcher.runtime.removal import remove

_MARKER = ".whole.json"
# Work that goes on where it was cut off lies beside a folder's place under a name that ends so.
RESUMED = ".building"
_LOCK = ".lock"


class _Contents(Record):
    """The marker: the SHA-256 of every file, by its path in the folder."""

    files: dict[str, str]


def is_whole(folder: Path) -> bool:
    """Whether a folder holds what its marker names, byte for byte, and nothing besides."""
    try:
        named = _Contents.model_validate_json((folder / _MARKER).read_bytes()).files
        return _digests(folder) == named
    except (OSError, ValueError):
        return False


def shared(name: str) -> Path | None:
    """Where the entry of this name belongs in this user's cache; None for a user without a home."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        # A path that is relative counts for nothing, by the rules of XDG.
        cache = given if given.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return cache / "affineur" / name


def take_or_make(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    """See that a folder is whole: copied from the shared entry of this name, or made and shared.

    Other launchers that want it wait. `make` is given a folder that is not there yet.
    """
    if is_whole(folder):
        return
    with hold_place(folder) as beside:
        # Another launcher may have made it meanwhile.
        if is_whole(folder):
            return
        made = beside / folder.name
        with _hold_shared(name) as kept:
            if kept is None or not copy_if_whole(kept, made):
                make(made)
                _Contents(files=_digests(made)).write(made / _MARKER)
                if kept is not None:
                    share(made, kept)
        replace_folder(folder, made)


@contextmanager
def hold_place(folder: Path) -> Iterator[Path]:
    """Hold a folder's place against other launchers, and give a folder beside it to work in.

    What a launcher that was killed left there is removed, but for what it can go on with.
    """
    beside = folder.with_name(f".{folder.name}")
    with exclusive_lock(beside, wait=True):
        _sweep(beside)
        try:
            yield beside
        finally:
            _sweep(beside)


def copy_if_whole(kept: Path, target: Path, check: Callable[[Path], bool] | None = None) -> bool:
    """Copy a folder and check the copy, by its marker or by `check`; what is not whole goes."""
    if not kept.is_dir():
        return False
    copy_folder(kept, target)
    if (check or is_whole)(target):
        return True
    remove(target)
    return False


def share(made: Path, kept: Path) -> None:
    """Copy a folder to its place in this user's cache, which the caller holds.

    It saves minutes elsewhere, and is no reason to fail here: not where that disk is full, nor
    where nothing may be written.
    """
    copied = kept.with_name(f".{kept.name}") / kept.name
    with suppress(OSError):
        copy_folder(made, copied)
        replace_folder(kept, copied)


def copy_folder(folder: Path, target: Path) -> None:
    """Copy a folder to a place where none is yet.

    Raises:
        OSError: the first file that cannot be copied (shutil.copytree says of none why it was).
    """
    target.mkdir(parents=True)
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            copy_folder(entry, target / entry.name)
        else:
            shutil.copy2(entry, target / entry.name)


def replace_folder(folder: Path, made: Path) -> None:
    """Rename a finished folder to its place, and remove what was there."""
    remove(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made.rename(folder)


def _digests(folder: Path) -> dict[str, str]:
    files = {path.relative_to(folder): path for path in files_below(folder)}
    return {
        name.as_posix(): digest_of_file(path)
        for name, path in files.items()
        # Python writes its bytecode beside the converters, where it may.
        if name.as_posix() != _MARKER and "__pycache__" not in name.parts
    }


@contextmanager
def _hold_shared(name: str) -> Iterator[Path | None]:
    """Hold the place of a shared entry, where this user has a cache and may write there."""
    kept = shared(name)
    with ExitStack() as stack:
        if kept is not None:
            with suppress(OSError):
                stack.enter_context(hold_place(kept))
        yield kept


def _sweep(beside: Path) -> None:
    for left in beside.iterdir():
        if left.name != _LOCK and not left.name.endswith(RESUMED):
            remove(left)
