"""The table of dataset formats: read a file into rows, each with the place it stands in.

Knows formats, not columns. A new format is an entry of `_READERS`, and nothing else: the launcher
finds datasets by name and leaves their suffixes to this module.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from contract.errors import Problem, UserError


class Row(NamedTuple):
    """One row as it stands in the file; `where` is what a person can jump to."""

    where: str
    values: dict[str, Any]


def is_dataset(path: Path) -> bool:
    """Whether a file's name says that it is in a format that can be read."""
    return path.suffix.lower() in _READERS


def read_rows(path: Path, problems: list[Problem]) -> list[Row]:
    """Every row of the file, in its order; rows that cannot be read are added to `problems`.

    Raises:
        UserError: the file as a whole cannot be read, or holds no row.
    """
    if not is_dataset(path):
        raise UserError.one(
            path.name,
            f"{path.suffix or 'no suffix'} is not a supported dataset format",
            f"Use one of {', '.join(_READERS)}.",
        )
    rows = list(_READERS[path.suffix.lower()](path, problems))
    if not rows and not problems:
        raise UserError.one(path.name, "contains no rows", "Was the export truncated or empty?")
    return rows


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError.one(
            f"{path.name}:{line}",
            f"byte 0x{content[error.start]:02x} is not UTF-8",
            "Save the file as UTF-8.",
        ) from None


def _read_jsonl(path: Path, problems: list[Problem]) -> Iterator[Row]:
    # Split at line feeds alone: str.splitlines would also split at U+2028 inside a string.
    for number, line in enumerate(_text(path).split("\n"), 1):
        where = f"{path.name}:{number}"
        if line.strip():
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                problems.append(_bad_json(where, error, line))
                continue
            yield from _as_row(where, values, problems)


def _bad_json(where: str, error: json.JSONDecodeError, line: str) -> Problem:
    near = line[max(0, error.pos - 12) : error.pos + 12].strip()
    remedy = "Each line must be one JSON object."
    if error.msg.startswith("Expecting ',' delimiter"):
        remedy = 'Escape quotes inside a string as \\".'
    if line.lstrip().startswith("[") and where.endswith(":1"):
        remedy = "Put an array of rows into a .json file."
    return Problem(
        where=where,
        what=f"is not valid JSON: {error.msg} at column {error.colno}, near {near!r}",
        remedy=remedy,
    )


def _as_row(where: str, values: Any, problems: list[Problem]) -> Iterator[Row]:
    if isinstance(values, dict):
        yield Row(where, values)
    else:
        kind = type(values).__name__
        problems.append(Problem(where=where, what=f"is a {kind}, not an object with columns"))


def _read_json(path: Path, problems: list[Problem]) -> Iterator[Row]:
    text = _text(path)
    if not text.strip():
        return
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        remedy = "Put one object per line into a .jsonl file." if error.lineno == 2 else ""
        raise UserError.one(
            f"{path.name}:{error.lineno}",
            f"is not valid JSON: {error.msg} at column {error.colno}",
            remedy,
        ) from None
    if not isinstance(content, list):
        raise UserError.one(path.name, "is not an array of rows", "Put the rows between [ and ].")
    for number, values in enumerate(content, 1):
        yield from _as_row(f"{path.name} row {number}", values, problems)


def _read_csv(path: Path, problems: list[Problem]) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    text = _text(path)
    header = text.partition("\n")[0]
    # A spreadsheet set to French writes semicolons.
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for values in reader:
            where = f"{path.name}:{reader.line_num}"
            if None in values or None in values.values():
                given = sum(value is not None for name, value in values.items() if name) + len(
                    values.get(None) or ()
                )
                problems.append(
                    Problem(
                        where=where,
                        what=f"has {given} fields where the header has "
                        f"{len(reader.fieldnames or ())}",
                        remedy="Quote text that contains the separator or a line break.",
                    )
                )
                continue
            yield Row(where, values)
    except csv.Error as error:
        raise UserError.one(
            f"{path.name}:{reader.line_num}", f"is not valid CSV: {error}"
        ) from None


def _read_parquet(path: Path, problems: list[Problem]) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    del problems  # A parquet file is read or refused as a whole.
    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowException as error:
        first_line = str(error).splitlines()[0]
        raise UserError.one(path.name, f"is not a readable parquet file: {first_line}") from None
    for number, values in enumerate(table.to_pylist(), 1):
        yield Row(f"{path.name} row {number}", values)


_READERS: dict[str, Callable[[Path, list[Problem]], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
