"""Which base model is asked for, and which one it turned out to be."""

from __future__ import annotations

from typing import Literal

from contract.record import Record

# The name under which the embedded smoke base is asked for.
SMOKE = "smoke"


class BaseRequest(Record):
    """What the `base` stage is asked to put into the cache."""

    kind: Literal["smoke", "hub"]
    repository: str
    revision: str | None


class BaseIdentity(Record):
    """Which base model: its source, the revision that was pinned, the digests of its files."""

    source: str
    revision: str | None
    digest: str
    files: dict[str, str]
