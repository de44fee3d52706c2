"""A few letters for each row of a data file, by which a changed row is found without the file.

The digest of a file says that it is another one; these say where. They stand in the record of
`prepare`, so that a stranger who has the manifest and no more is told which row differs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePath

from contract.record import Record

# In one of 16 million, two rows have the same: the file's own digest still says that it differs.
_DIGEST_BYTES = 3
_LETTERS = 4
_BLOCK_BYTES = 1 << 16
# No row is as long; what is no text may have no line at all.
_LONGEST_LINE_BYTES = 1 << 25
_SPACE = re.compile(r"[ \t\n\r]*")


class DataRows(Record):
    """The rows of a data file.

    Attributes:
        name: of the file, which its rows are named after.
        digests: four letters for each row, in their order: for each line of a text, for each entry
            of an array in a `.json`, and for each 64 KiB of a `.parquet`, which has no lines.
    """

    name: str
    digests: str

    @classmethod
    def of(cls, file: Path) -> DataRows:
        """Those of a file, whose suffix says its format."""
        # As text, each would take ten times as much memory.
        digests = bytearray()
        for _, content in _rows(file, file):
            digests += _digest(content)
        return cls(name=file.name, digests=digests.decode())

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.digests) // _LETTERS

    def first_difference(self, file: Path) -> str:
        """Where another file begins to differ from this one, in the words of a sentence.

        Args:
            file: in the same format, under whatever name.
        """
        found = 0
        for found, (where, content) in enumerate(_rows(file, PurePath(self.name)), 1):
            if found > self.count:
                return f"{where} was not in it"
            kept = self.digests[(found - 1) * _LETTERS : found * _LETTERS]
            if _digest(content) != kept.encode():
                return f"{where} differs"
        if found < self.count:
            return f"it ends after {found:,} of {self.count:,} rows"
        return "its rows are the same, and what stands between them is not"


def _digest(content: bytes) -> bytes:
    return base64.b64encode(hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest())


def _rows(file: Path, name: PurePath) -> Iterator[tuple[str, bytes]]:
    """Where each row stands, as `prepare` names it, and its bytes; the format is the name's."""
    suffix = name.suffix.lower()
    if suffix == ".json":
        for number, row in enumerate(_entries(file), 1):
            yield f"{file.name} row {number}", row
    elif suffix == ".parquet":
        yield from _blocks(file)
    else:
        with file.open("rb") as opened:
            lines = iter(lambda: opened.readline(_LONGEST_LINE_BYTES), b"")
            for number, line in enumerate(lines, 1):
                yield f"{file.name}:{number}", line


def _blocks(file: Path) -> Iterator[tuple[str, bytes]]:
    begin = 0
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK_BYTES):
            yield f"{file.name}, in the bytes {begin:,} to {begin + len(block):,},", block
            begin += len(block)


def _entries(file: Path) -> Iterator[bytes]:
    """The entries of an array, as they are written; all that follows one that is damaged is its."""
    text = file.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    decoder = json.JSONDecoder()
    at = _behind_space(text, 0)
    if text[at : at + 1] == "[":
        at = _behind_space(text, at + 1)
    while at < len(text) and text[at] != "]":
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = len(text)
        yield text[at:end].encode("utf-8", errors="surrogateescape")
        at = _behind_space(text, end)
        if text[at : at + 1] == ",":
            at = _behind_space(text, at + 1)


def _behind_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
