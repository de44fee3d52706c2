"""What a lock pins: each package, its version, and the digests of its archives."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})(?![0-9a-f])")


@dataclass(frozen=True)
class Requirement:
    """A line of a lock, with those that continue it.

    Attributes:
        text: as it stands there, without its hashes.
        name: of the package; None where the line names no version of one.
        sha256: of its archives, of which each installation takes one.
    """

    text: str
    name: str | None
    version: str | None
    sha256: tuple[str, ...]


def requirements(lock: str) -> list[Requirement]:
    """All requirements in a lock's text, in its order."""
    lines = re.sub(r"\\\n\s*", " ", lock).splitlines()
    return [_requirement(line) for line in lines if line.strip() and line.lstrip()[0] != "#"]


def _requirement(line: str) -> Requirement:
    pinned = _PINNED.match(line)
    return Requirement(
        text=line.partition("--hash=")[0].strip(),
        name=pinned[1] if pinned else None,
        version=pinned[2] if pinned else None,
        sha256=tuple(_HASH.findall(line)),
    )
