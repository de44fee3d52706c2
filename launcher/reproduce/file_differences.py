"""Where two files differ, in words: tensors and metadata, a line and a key, or a byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from contract.errors import UserError
from launcher.reproduce.record import TensorDifference
from launcher.reproduce.tensor_files import (
    SUFFIXES,
    TensorFile,
    metadata_differences,
    tensor_differences,
)

_CHUNK_BYTES = 1 << 20
# Of a value, on the terminal.
_SHOWN_CHARACTERS = 40
_NAMED_KEYS = 5
# Of what is no key at all.
_ABSENT = object()


class Differences(NamedTuple):
    """Where a rebuilt file differs from the run's own: in words, and by its tensors."""

    where: list[str]
    tensors: list[TensorDifference]


def differences(there: Path, here: Path, on_tensor: Callable[[str], None]) -> Differences:
    """Where two files that are not the same differ.

    Args:
        there: the run's file.
        here: the rebuilt one.
        on_tensor: is told of each tensor that differs.
    """
    if there.suffix in SUFFIXES:
        try:
            files = TensorFile.read(there), TensorFile.read(here)
        except (UserError, ValueError, KeyError, TypeError, AttributeError):
            # One of them is damaged: what is left is where they part.
            return Differences([first_byte(there, here)], [])
        return _of_tensor_files(*files, on_tensor)
    if there.suffix in (".json", ".jsonl"):
        of = jsonl_difference if there.suffix == ".jsonl" else _of_json
        found = of(there, here)
        return Differences([found or first_byte(there, here)], [])
    return Differences([first_byte(there, here)], [])


def jsonl_difference(there: Path, here: Path, but_for: Collection[str] = ()) -> str | None:
    """The first line that differs, with the key; None where all say the same.

    Args:
        but_for: keys whose values are of no account.
    """
    with there.open("rb") as one, here.open("rb") as other:
        for number, (line, rebuilt) in enumerate(zip_longest(one, other), 1):
            if line == rebuilt:
                continue
            if line is None or rebuilt is None:
                which = "the rebuilt file" if rebuilt is None else "the run's file"
                return f"{which} ends before line {number}"
            try:
                values = [_without(json.loads(text), but_for) for text in (line, rebuilt)]
            except ValueError:
                return f"line {number}"
            if key := _first_key(*values):
                return f"line {number}: {key}"
    return None


def first_byte(there: Path, here: Path) -> str:
    """Where two files that are not the same part: `first at byte 1,024`."""
    begin = 0
    with there.open("rb") as one, here.open("rb") as other:
        while True:
            pieces = one.read(_CHUNK_BYTES), other.read(_CHUNK_BYTES)
            if pieces[0] != pieces[1]:
                break
            if not pieces[0]:
                return "nowhere: the same bytes"
            begin += len(pieces[0])
    pairs = zip(*pieces, strict=False)
    apart = next((i for i, (a, b) in enumerate(pairs) if a != b), min(map(len, pieces)))
    sizes = there.stat().st_size, here.stat().st_size
    cut = "" if sizes[0] == sizes[1] else f" ({sizes[0]:,} bytes, rebuilt {sizes[1]:,})"
    return f"first at byte {begin + apart:,}{cut}"


def _of_tensor_files(
    there: TensorFile, here: TensorFile, on_tensor: Callable[[str], None]
) -> Differences:
    tensors = []
    for found in tensor_differences(there, here):
        on_tensor(found.name)
        tensors.append(found)
    where = []
    if tensors:
        first = tensors[0]
        numbers = [found.largest for found in tensors if found.largest is not None]
        largest = f", at most by {max(numbers):.2g}" if numbers else ""
        where.append(f"{len(tensors)} of {len(there.tensors)} tensors{largest}; {first.name}")
        where[-1] += f": {first.what}"
    if keys := metadata_differences(there, here):
        more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
        where.append(f"metadata: {', '.join(keys[:_NAMED_KEYS])}{more}")
    # What is left is the order of tensors, or the space between them.
    return Differences(where or [first_byte(there.path, here.path)], tensors)


def _of_json(there: Path, here: Path) -> str | None:
    values = []
    for path in (there, here):
        try:
            values.append(json.loads(path.read_bytes()))
        except ValueError:
            return None
    return _first_key(*values)


def _without(value: Any, keys: Collection[str]) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: item for name, item in value.items() if name not in keys}


def _first_key(there: Any, here: Any, place: str = "") -> str | None:
    """`loss.tuned: 0.013, rebuilt 0.014`, of the first value that differs; None where none does."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in {**there, **here}:
            inside = f"{place}.{name}" if place else str(name)
            if found := _first_key(there.get(name, _ABSENT), here.get(name, _ABSENT), inside):
                return found
        return None
    if isinstance(there, list) and isinstance(here, list):
        for number, pair in enumerate(zip_longest(there, here, fillvalue=_ABSENT)):
            if found := _first_key(*pair, f"{place}[{number}]"):
                return found
        return None
    # 1 is 1.0 and True in Python, and not in a file.
    if type(there) is type(here) and there == here:
        return None
    values = f"{_shown(there)}, rebuilt {_shown(here)}"
    return f"{place}: {values}" if place else values


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
