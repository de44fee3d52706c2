"""Which base model is asked for, and which one it turned out to be."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

# The name under which the embedded smoke base is asked for.
SMOKE = "smoke"


class BaseRequest(BaseModel):
    """What the `base` stage is asked to put into the cache."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    kind: Literal["smoke", "hub"]
    repository: str
    revision: str | None


class BaseIdentity(BaseModel):
    """Which base model: its source, the revision that was pinned, the digests of its files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    revision: str | None
    digest: str
    files: dict[str, str]
