"""What an audit finds: inputs that a digest pins, and inputs that none pins."""

from __future__ import annotations

import re

from contract.errors import Problem
from contract.record import Record

_SHA256 = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_IMAGE = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Pinned(Record):
    """An input, and the digest or commit that pins it."""

    what: str
    by: str


class Audit(Record):
    """All inputs that were looked at.

    Attributes:
        unpinned: what no digest pins: where it stands, what it is, and how to pin it.
        remarks: what no digest can pin, and what it means.
    """

    unpinned: list[Problem]
    pinned: list[Pinned]
    remarks: list[str]


class Findings:
    """An audit while it is made."""

    def __init__(self) -> None:
        """Nothing was looked at yet."""
        self._unpinned: dict[Problem, None] = {}
        self._pinned: dict[Pinned, None] = {}
        self._remarks: list[str] = []

    def audit(self) -> Audit:
        """All that was found."""
        return Audit(
            unpinned=list(self._unpinned), pinned=list(self._pinned), remarks=self._remarks
        )

    def remark(self, text: str) -> None:
        """Say what cannot be pinned."""
        self._remarks.append(text)

    def pinned(self, what: str, by: str) -> None:
        """Count an input that is pinned."""
        self._pinned[Pinned(what=what, by=by)] = None

    def unpinned(self, where: str, what: str, remedy: str) -> None:
        """Count an input that is not."""
        self._unpinned[Problem(where=where, what=what, remedy=remedy)] = None

    def digest(self, what: str, digest: str, *, where: str, remedy: str) -> None:
        """Count an input whose SHA-256 should be recorded."""
        if _SHA256.fullmatch(digest):
            self.pinned(what, f"sha256:{digest.removeprefix('sha256:')}")
        else:
            self.unpinned(where, f"no digest of {what} is recorded ({digest!r})", remedy)

    def image(self, reference: str, *, where: str, remedy: str = "") -> None:
        """Count an image by the reference that names it."""
        if _IMAGE.fullmatch(reference):
            self.pinned(f"image {reference.partition('@')[0]}", reference.partition("@")[2])
            return
        remedy = remedy or f"Name it by digest: {reference.partition('@')[0]}@sha256:..."
        self.unpinned(where, f"the image {reference} is named by a tag, and not by digest", remedy)


def is_commit(revision: str) -> bool:
    """Whether a revision is a whole commit, which nobody can move."""
    return _COMMIT.fullmatch(revision) is not None
