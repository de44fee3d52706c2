"""SHA-256 digests of bytes, files, folders and plain values: what keys are made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20


def digest_of_file(path: Path) -> str:
    """The hexadecimal SHA-256 of the file's bytes, read in pieces of 1 MiB."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha.update(chunk)
    return sha.hexdigest()


def digest_of_value(value: Any) -> str:
    """The SHA-256 of a JSON value in one canonical form (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Every file below the folder, in one order on every machine."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
