"""JSON as it stands in a file: numbers keep their digits, and what is not clear is named.

Python's own reader takes the last of two equal keys, writes `2.50` as `2.5`, cannot read integers
of more than 4,300 digits, and lets halves of characters through that nothing can write again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal, InvalidOperation
from typing import Any

# No document of a dataset is deeper; pydantic and Jinja give up at a few hundred levels.
MAX_DEPTH = 100
# Python writes no longer ones.
_MAX_INTEGER_DIGITS = 4300
_TEXT_TYPES = (date, time)


@dataclass(frozen=True)
class Number:
    """A number that Python would write in another way than the file does."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Flaw:
    """Why a value cannot be taken as it is, and the remedy.

    `loads` leaves it where the value would stand, so that whoever knows the line can name it.
    """

    what: str
    remedy: str = ""


TOO_DEEP = Flaw(f"is nested more than {MAX_DEPTH} levels deep")


def loads(text: str) -> Any:
    """The value of a JSON text; NaN, which no JSON has and pandas writes, is a missing value.

    Numbers that Python would write otherwise are a `Number`. A `Flaw` stands in place of an object
    that has one key twice, and of an infinity; see `flaw`.

    Raises:
        json.JSONDecodeError: it is no JSON.
        RecursionError: it is nested too deeply to be read.
    """
    return json.loads(
        text,
        parse_int=_integer,
        parse_float=_float,
        parse_constant=_constant,
        object_pairs_hook=_object,
    )


def dumps(value: Any) -> str:
    """The value as JSON, letters and numbers as they were read.

    Raises:
        ValueError: a value has no text, such as bytes.
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        pairs = (f"{dumps(str(key))}: {dumps(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(dumps, value)) + "]"
    if isinstance(value, _TEXT_TYPES):
        return f'"{value.isoformat()}"'
    return scalar_text(value)


def scalar_text(value: Any) -> str:
    """A value that is no text and no container, as text: `true`, `2.50`, `null`.

    Raises:
        ValueError: it has none.
    """
    if is_missing(value):
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Number):
        return value.text
    if isinstance(value, int):
        # str() refuses integers of more than 4,300 digits.
        return format(Decimal(value), "f")
    if isinstance(value, float | Decimal) and abs(value) != float("inf"):
        return format(value, "f") if isinstance(value, Decimal) else repr(value)
    if isinstance(value, _TEXT_TYPES):
        return value.isoformat()
    what = "an infinite number" if isinstance(value, float | Decimal) else type(value).__name__
    raise ValueError(f"contains {what}, which has no text")


def native(value: Any) -> Any:
    """The value with Python's own numbers: for what a template or a program computes with.

    Raises:
        ValueError: a number has more digits than Python keeps, or a value is no JSON.
    """
    if isinstance(value, Mapping):
        return {str(key): native(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [native(item) for item in value]
    if isinstance(value, str | bool):
        return value
    text = dumps(value)
    if text.startswith('"'):
        return text[1:-1]
    return None if text == "null" else _kept(text)


def _kept(text: str) -> int | float:
    shown = text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"
    too_many = ValueError(f"contains the number {shown}, which has more digits than are kept")
    if text.lstrip("-").isdigit():
        if len(text) > _MAX_INTEGER_DIGITS:
            raise too_many
        return int(text)
    kept = float(text)
    try:
        same = Decimal(repr(kept)) == Decimal(text)
    except InvalidOperation:
        same = False
    if not same:
        raise too_many
    return kept


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: null, or the NaN that stands for it in tables."""
    if isinstance(value, Decimal):
        return value.is_nan()
    return value is None or (isinstance(value, float) and value != value)


def flaw(value: Any) -> Flaw | None:
    """The first thing, anywhere in the value, that cannot be carried to the model unchanged."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, Flaw):
            return item
        if isinstance(item, str):
            if found := _flaw_of_text(item):
                return found
        elif isinstance(item, Mapping | list | tuple):
            if depth == MAX_DEPTH:
                return TOO_DEEP
            inner = [*item, *item.values()] if isinstance(item, Mapping) else item
            waiting += [(part, depth + 1) for part in inner]
    return None


def flaw_of_row(row: Mapping[str, Any]) -> Flaw | None:
    """The first flaw of a row, with the column that has it."""
    for name, value in row.items():
        if found := flaw(name):
            return Flaw(f"has a column whose name {found.what}", found.remedy)
        if found := flaw(value):
            return Flaw(f"{name}: {found.what}", found.remedy)
    return None


def _flaw_of_text(text: str) -> Flaw | None:
    if "\0" in text:
        return Flaw(
            "contains the character NUL (\\u0000)", "Other programs would cut the text there."
        )
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        return Flaw(
            f"contains half a character ({half}, a lone surrogate)",
            "The text was cut inside an emoji: complete or remove it.",
        )
    return None


def _integer(text: str) -> int | Number:
    if len(text) <= _MAX_INTEGER_DIGITS and str(value := int(text)) == text:
        return value
    return Number(text)


def _float(text: str) -> float | Number:
    value = float(text)
    return value if repr(value) == text else Number(text)


def _constant(name: str) -> Flaw | None:
    return None if name == "NaN" else Flaw(f"contains {name}, which is not a JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Flaw:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
    return Flaw(f"has the key {twice!r} twice in one object", "Keep one of them.")
