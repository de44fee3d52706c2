"""Read JSON that a model wrote: whatever stands in it, the outcome is a value or a sentence.

Python's own reader fails at integers of more than 4,300 digits, ends in a RecursionError in deep
nesting, and takes `NaN`, which no other program does.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, NoReturn

MAX_DEPTH = 200
_MAX_INTEGER_DIGITS = 4000


class BadJson(ValueError):
    """Why a text is no JSON, in a few words."""


class TooDeep(BadJson):
    """It may be JSON, and is nested more than `MAX_DEPTH` deep."""

    def __init__(self) -> None:
        super().__init__("nested too deeply")


def read_json(text: str, *, unique_keys: bool = False) -> Any:
    """The value of a JSON text, with exact numbers: each a `Decimal`.

    A number whose exponent no `Decimal` can hold is a tuple of its text, which equals itself alone.
    Of a key that stands twice in an object the last value counts, as in most programs.

    Args:
        text: what is to be JSON as a whole.
        unique_keys: whether a key that stands twice is an error.

    Raises:
        BadJson: it is no JSON, or nested too deeply.
    """
    try:
        value = json.loads(
            text,
            parse_int=_number,
            parse_float=_number,
            parse_constant=_no_number,
            object_pairs_hook=_unique if unique_keys else None,
        )
    except json.JSONDecodeError as error:
        raise BadJson(error.msg) from None
    except RecursionError:
        raise TooDeep from None
    if _deeper_than(value, MAX_DEPTH):
        raise TooDeep
    return value


def read_reply(text: bytes | str) -> Any:
    """A server's reply, whose strings and tool calls are a model's: integers too long are texts.

    Raises:
        TooDeep: what the model wrote is nested too deeply.
        BadJson: it is no JSON.
    """
    try:
        value = json.loads(text, parse_int=_integer_or_digits)
    except json.JSONDecodeError as error:
        raise BadJson(error.msg) from None
    except UnicodeDecodeError:
        raise BadJson("not UTF-8") from None
    except RecursionError:
        raise TooDeep from None
    if _deeper_than(value, MAX_DEPTH):
        raise TooDeep
    return value


def _number(text: str) -> Decimal | tuple[str]:
    try:
        return Decimal(text)
    except ArithmeticError:
        return (text,)


def _integer_or_digits(text: str) -> int | str:
    return int(text) if len(text) <= _MAX_INTEGER_DIGITS else text


def _no_number(name: str) -> NoReturn:
    raise BadJson(f"{name} is not a JSON value")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise BadJson(f"the key {key!r} stands twice in an object")
        found[key] = value
    return found


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
