"""The table of dataset formats: read a file row by row, each with the place it stands in.

A .jsonl, a .csv and a .parquet file are read as far as rows are asked for, and never held in memory
whole; a .json file is one array, and is. Knows formats, not columns. A new format is an entry of
`_READERS`, and nothing else: the launcher finds datasets by name and leaves their suffixes to this
module.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from contract import exact_json
from contract.errors import Problem, Problems, UserError
from contract.exact_json import MAX_DEPTH, TOO_DEEP, Flaw, Number, is_missing

# Longer than any row that is meant (a million tokens are about four million characters), and short
# enough to be held in memory, with its tokens.
MAX_LINE_CHARACTERS = 1 << 23
_PARQUET_ROWS = 256


class Row(NamedTuple):
    """One row as it stands in the file; `where` is what a person can jump to."""

    where: str
    values: dict[str, Any]


def is_dataset(path: Path) -> bool:
    """Whether a file's name says that it is in a format that can be read."""
    return path.suffix.lower() in _READERS


def read_rows(path: Path, problems: Problems) -> Iterator[Row]:
    """The rows of the file, in its order; rows that cannot be read are added to `problems`.

    Raises:
        UserError: the file cannot be read from here on, or holds no row.
    """
    if not is_dataset(path):
        raise UserError.one(
            path.name,
            f"{path.suffix or 'no suffix'} is not a supported dataset format",
            f"Use one of {', '.join(_READERS)}.",
        )
    has_rows = False
    for row in _READERS[path.suffix.lower()](path, problems):
        has_rows = True
        yield row
    if not has_rows and not problems:
        raise UserError.one(path.name, "contains no rows", "Was the export truncated or empty?")


def _lines(path: Path, *, newline: str) -> Iterator[str]:
    """The lines of a text, each with what ends it; `newline` is that of `open`.

    Raises:
        UserError: one is not UTF-8, or too long for a row.
    """
    # What is not UTF-8 is read as lone surrogates, so that an error has the line it belongs to.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline) as file:
        number = 0
        while line := file.readline(MAX_LINE_CHARACTERS + 1):
            number += 1
            if len(line) > MAX_LINE_CHARACTERS:
                raise UserError.one(
                    f"{path.name}:{number}",
                    f"is longer than {MAX_LINE_CHARACTERS:,} characters",
                    "A row is one line: was the file written without line breaks?",
                )
            if not line.isascii() and (found := _NOT_UTF8.search(line)):
                raise _not_utf8(path, number, found)
            yield line


# The halves of characters that `surrogateescape` puts in place of bytes.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")


def _not_utf8(path: Path, line: int, found: re.Match[str]) -> UserError:
    return UserError.one(
        f"{path.name}:{line}",
        f"byte 0x{ord(found[0]) & 0xFF:02x} is not UTF-8",
        "Save the file as UTF-8.",
    )


def _read_jsonl(path: Path, problems: Problems) -> Iterator[Row]:
    # Split at line feeds alone: str.splitlines would also split at U+2028 inside a string.
    for number, ended in enumerate(_lines(path, newline="\n"), 1):
        where, line = f"{path.name}:{number}", ended.removesuffix("\n")
        if line.strip():
            try:
                values = exact_json.loads(line)
            except json.JSONDecodeError as error:
                problems.append(_bad_json(where, error, line))
            except RecursionError:
                problems.append(_problem(where, TOO_DEEP))
            else:
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


def _problem(where: str, flaw: Flaw) -> Problem:
    return Problem(where=where, what=flaw.what, remedy=flaw.remedy)


def _as_row(where: str, values: Any, problems: Problems) -> Iterator[Row]:
    if isinstance(values, Flaw):
        problems.append(_problem(where, values))
    elif not isinstance(values, dict):
        kind = "number" if isinstance(values, Number) else type(values).__name__
        problems.append(Problem(where=where, what=f"is a {kind}, not an object with columns"))
    elif flaw := exact_json.flaw_of_row(values):
        problems.append(_problem(where, flaw))
    else:
        yield Row(where, values)


def _read_json(path: Path, problems: Problems) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        text = file.read()
    if found := _NOT_UTF8.search(text):
        raise _not_utf8(path, text.count("\n", 0, found.start()) + 1, found)
    if not text.strip():
        return
    try:
        content = exact_json.loads(text)
    except RecursionError:
        raise UserError.one(f"{path.name}:{_deepest_line(text)}", TOO_DEEP.what) from None
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


_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', re.DOTALL)


def _deepest_line(text: str) -> int:
    """The line in which a document is nested too deeply."""
    depth = 0
    for found in _BRACKET.finditer(text):
        depth += bool(found[1]) - bool(found[2])
        # Rows are one level below the array that holds them.
        if depth > MAX_DEPTH + 1:
            return text.count("\n", 0, found.start()) + 1
    return 1


def _read_csv(path: Path, problems: Problems) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE_CHARACTERS)
    # Line ends are the reader's to understand, as text in quotes may have them.
    lines = _lines(path, newline="")
    first_line = next(lines, "")
    # A spreadsheet set to French writes semicolons.
    delimiter = max(",;\t", key=first_line.count)
    reader = csv.DictReader(chain([first_line], lines), delimiter=delimiter, strict=True)
    try:
        header = reader.fieldnames or ()
        if twice := _twice(header):
            raise UserError.one(
                f"{path.name}:1", f"has two columns named {twice!r}", "Rename one of them."
            )
        for values in reader:
            where = f"{path.name}:{reader.line_num}"
            if None in values or None in values.values():
                fields = [value for name, value in values.items() if name is not None]
                given = sum(value is not None for value in fields) + len(values.get(None) or ())
                problems.append(
                    Problem(
                        where=where,
                        what=f"has {given} fields where the header has {len(header)}",
                        remedy="Quote text that contains the separator or a line break.",
                    )
                )
            elif _is_header(list(values.values()), header):
                problems.append(
                    Problem(
                        where=where,
                        what="repeats the header",
                        remedy="Two files were joined: remove the second header.",
                    )
                )
            else:
                yield from _as_row(where, values, problems)
    except csv.Error as error:
        open_quote = "field larger" in str(error)
        raise UserError.one(
            f"{path.name}:{reader.line_num}",
            f"is not valid CSV: {error}",
            "Is a quote left open?" if open_quote else "",
        ) from None


def _is_header(fields: list[str], header: Sequence[str]) -> bool:
    # Behind a byte order mark, quotes do not begin a field, and stand in it.
    if fields[0].startswith("\ufeff"):
        fields = [fields[0].removeprefix("\ufeff").strip('"'), *fields[1:]]
    return fields == list(header)


def _twice(names: Iterable[str]) -> str | None:
    return next((name for name, times in Counter(names).items() if times > 1), None)


def _read_parquet(path: Path, problems: Problems) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        if twice := _twice(parquet.read_schema(path).names):
            raise UserError.one(
                path.name, f"has two columns named {twice!r}", "Rename one of them."
            )
        number = 0
        # Buffered ahead, it would be read whole.
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                table = _with_short_floats(pyarrow.Table.from_batches([batch]))
                for row in range(table.num_rows):
                    number += 1
                    where = f"{path.name} row {number}"
                    yield from _parquet_row(table.slice(row, 1), where, problems)
    except (pyarrow.ArrowException, OSError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError.one(path.name, f"is not a readable parquet file: {first_line}") from None


def _parquet_row(table: Any, where: str, problems: Problems) -> Iterator[Row]:
    """The row in a table of one."""
    try:
        (values,) = table.to_pylist(maps_as_pydicts="strict")
    except (ValueError, KeyError, OverflowError) as error:
        # Not UTF-8, a date beyond the year 9999, one key twice in a map.
        what = f"contains a value that cannot be read: {error}"
        problems.append(Problem(where=where, what=what))
    else:
        cells = {name: _without_absent(value) for name, value in values.items()}
        yield from _as_row(where, cells, problems)


def _with_short_floats(table: Any) -> Any:
    """The table with its float32 and float16 columns as the doubles that print as they do.

    0.1 as a float32 would otherwise be 0.10000000149011612.
    """
    import pyarrow
    from pyarrow import types

    for index, field in enumerate(table.schema):
        if types.is_float16(field.type) or types.is_float32(field.type):
            as_text = table.column(index).cast(pyarrow.float32()).cast(pyarrow.string())
            table = table.set_column(index, field.name, as_text.cast(pyarrow.float64()))
    return table


def _without_absent(value: Any) -> Any:
    """Structs without their null fields: Arrow has no other way to say that a key is absent.

    One row's arguments or schema would otherwise carry every other row's keys.
    """
    if isinstance(value, dict):
        return {key: _without_absent(item) for key, item in value.items() if not is_missing(item)}
    return [_without_absent(item) for item in value] if isinstance(value, list) else value


_READERS: dict[str, Callable[[Path, Problems], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
