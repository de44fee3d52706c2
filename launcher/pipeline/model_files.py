"""A model as files: what a server is given, whoever made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contract.digest import digest_of_value
from contract.serving import Serving


@dataclass(frozen=True)
class ModelFiles:
    """A model's files and how they are to be served.

    Attributes:
        name: for people.
        folder: what `serving` and `blobs` name lies below it.
        blobs: each file and its digest (`sha256:...`).
    """

    name: str
    folder: Path
    serving: Serving
    blobs: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of the files and of how they are served: the same on every server."""
        return digest_of_value({"blobs": dict(self.blobs), "serving": self.serving.model_dump()})
