"""What a container is given of this machine's files: links resolved, and readable for its user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from contract.child_environment import CERTIFICATES
from contract.errors import Problem, UserError
from launcher.project import CACHE, MODELS, shown
from launcher.runtime.engine import Mount

# Where containers write: a link that lies there is never followed.
_WRITTEN_BY_STAGES = (CACHE, MODELS)
# The mount of a run's folder, which may lie anywhere.
_RUN = "run"
_ACCESS_LIST = "system.posix_acl_access"


@dataclass(frozen=True)
class Bind:
    """A file or folder of this machine, and its place in a container."""

    source: Path
    inside: PurePosixPath
    writable: bool = False


@dataclass(frozen=True)
class ContainerUser:
    """Whom a container's process is to this machine's files: no privileges, no other groups."""

    uid: int
    gid: int

    def may(self, path: Path, access: int) -> bool:
        """Whether the file's mode grants it this access (4 to read, 2 to write, 1 to enter)."""
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid == self.uid:
            mode >>= 6
        elif status.st_gid == self.gid:
            mode >>= 3
        return mode & access == access or _has_access_list(path)


def binds_of(mounts: Sequence[Mount]) -> list[Bind]:
    """What is to be mounted where.

    A folder with links that lead out of it, as the Hugging Face cache makes them, is mounted file
    by file: in a container they would lead nowhere.
    """
    return [bind for mount in mounts for bind in _binds(mount)]


def check_access(mounts: Sequence[Mount], user: ContainerUser) -> None:
    """See that the container's user may read what a person gave, and write where it is to.

    Raises:
        UserError: it may not.
    """
    problems = [
        problem for mount in mounts if (problem := _refused_access(mount, user)) is not None
    ]
    if problems:
        raise UserError(problems)


def certificates() -> list[Mount]:
    """This machine's certificates for a job with network: a company's proxy signs with its own."""
    given = [os.environ.get(name, "") for name in ("AFFINEUR_CA", *CERTIFICATES)]
    files = [Path(place).resolve() for place in given if place and Path(place).is_file()]
    return [Mount("certificates", files[0])] if files else []


def _binds(mount: Mount) -> list[Bind]:
    whole = Bind(mount.source, mount.inside, mount.writable)
    if mount.writable or not mount.source.is_dir() or not _is_a_persons(mount):
        return [whole]
    files = list(_below(mount.source))
    if not any(_leads_out(file, mount.source) for file in files):
        return [whole]
    return [
        Bind(file.resolve(), mount.inside / file.relative_to(mount.source).as_posix())
        for file in files
        if file.exists()
    ]


def _refused_access(mount: Mount, user: ContainerUser) -> Problem | None:
    if mount.writable:
        refused = mount.source if _refuses_writing(mount.source, user) else None
    elif _is_a_persons(mount):
        refused = next((path for path in _all_of(mount.source) if not _readable(path, user)), None)
    else:
        return None
    if refused is None:
        return None
    owner = refused.stat().st_uid
    may_not = "written" if mount.writable else "read"
    whose = f"it belongs to user {owner}, and stages run there as user {user.uid}"
    if user.uid == 0:
        whose += " without root's privileges"
    remedy = f"Let others read it (chmod -R a+rX {shown(mount.source)})"
    if mount.writable or user.uid == 0:
        remedy = f"Run ./invoke as its owner, without sudo; or {_own(mount, user)}"
    return Problem(
        where=shown(refused),
        what=f"cannot be {may_not} in a container: {whose}",
        remedy=f"{remedy}, or use --engine local.",
    )


def _own(mount: Mount, user: ContainerUser) -> str:
    if mount.writable:
        return f"give it to that user (chown -R {user.uid} {shown(mount.source)})"
    return f"let others read it (chmod -R a+rX {shown(mount.source)})"


def _refuses_writing(folder: Path, user: ContainerUser) -> bool:
    return folder.exists() and not user.may(folder, 0o3)


def _readable(path: Path, user: ContainerUser) -> bool:
    return user.may(path, 0o5 if path.is_dir() else 0o4)


def _all_of(source: Path) -> Iterator[Path]:
    # What is not there, as a link that leads nowhere, is the engine's or the stage's to name.
    below = (
        Path(folder, name)
        for folder, folders, files in os.walk(source)
        for name in (*folders, *files)
    )
    yield from (path for path in (source, *below) if path.exists())


def _below(folder: Path) -> Iterator[Path]:
    """Every file, and every link to a folder: what can be mounted for itself."""
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in sorted(files))
        yield from (Path(place, name) for name in sorted(folders) if Path(place, name).is_symlink())


def _leads_out(path: Path, folder: Path) -> bool:
    return path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())


def _is_a_persons(mount: Mount) -> bool:
    resolved = mount.source.resolve()
    written = any(resolved.is_relative_to(place.resolve()) for place in _WRITTEN_BY_STAGES)
    return mount.name != _RUN and not written


def _has_access_list(path: Path) -> bool:
    # Its mode does not say all, and the kernel is to judge.
    with suppress(OSError):
        return _ACCESS_LIST in os.listxattr(path)
    return False
