"""Digests of large files, read again only where the file changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter

from contract.atomic_write import atomic_write
from contract.digest import digest_of_file
from launcher.project import CACHE
from launcher.runtime.file_stamp import FileStamp

_MEMORY = TypeAdapter(dict[str, tuple[FileStamp, str]])


class FileDigests:
    """Remembers each file's digest by its path and its stamp.

    Like git's index: a file whose stamp stands as it was is taken to hold what it held. The memory
    is a cache: one that is damaged, or that another version wrote, is begun anew.
    """

    def __init__(self, memory: Path = CACHE / "digests.json") -> None:
        self._memory = memory
        self._known = _read(memory)
        self._stamps: dict[Path, FileStamp] = {}

    def of(self, path: Path) -> str:
        """The file's SHA-256, hexadecimal."""
        stamp = FileStamp.of(path)
        known = self._known.get(str(path))
        if known is not None and known[0] == stamp:
            digest = known[1]
        else:
            stamp.wait_for_the_next()
            digest = digest_of_file(path)
            self._known[str(path)] = (stamp, digest)
        self._stamps[path] = stamp
        return digest

    def stamps(self, paths: Iterable[Path]) -> dict[Path, FileStamp]:
        """Each file's stamp when its digest was last asked for here.

        Raises:
            KeyError: one was not asked for.
        """
        return {path: self._stamps[path] for path in paths}

    def save(self) -> None:
        """Keep what was read for the next start, beside what other launchers saved meanwhile."""
        asked = {str(path): self._known[str(path)] for path in self._stamps}
        merged = {**_read(self._memory), **asked}
        known = {path: entry for path, entry in merged.items() if Path(path).exists()}
        atomic_write(self._memory, json.dumps(known, indent=0, sort_keys=True))


def _read(memory: Path) -> dict[str, tuple[FileStamp, str]]:
    with suppress(FileNotFoundError, ValueError):
        return _MEMORY.validate_python(json.loads(memory.read_bytes()))
    return {}
