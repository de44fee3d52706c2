"""Digests of large files, read again only where the file changed."""

from __future__ import annotations

import json
from pathlib import Path

from contract.atomic_write import atomic_write
from contract.digest import digest_of_file
from launcher.project import CACHE


class FileDigests:
    """Remembers each file's digest by its path, size and modification time.

    Like git's index: a file whose size and time (in nanoseconds) stand as they were is taken to
    hold what it held.
    """

    def __init__(self, memory: Path = CACHE / "digests.json") -> None:
        self._memory = memory
        self._known: dict[str, list[int | str]] = {}
        if memory.exists():
            self._known = json.loads(memory.read_text(encoding="utf-8"))

    def of(self, path: Path) -> str:
        """The file's SHA-256, hexadecimal."""
        status = path.stat()
        known = self._known.get(str(path))
        if known and known[:2] == [status.st_size, status.st_mtime_ns]:
            return str(known[2])
        digest = digest_of_file(path)
        self._known[str(path)] = [status.st_size, status.st_mtime_ns, digest]
        return digest

    def save(self) -> None:
        """Keep what was read for the next start, without the files that are gone."""
        known = {path: entry for path, entry in self._known.items() if Path(path).exists()}
        atomic_write(self._memory, json.dumps(known, indent=0, sort_keys=True))
