"""How alike two JSON values are in keys and values, in whatever order a list's objects come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def json_f1(found: Any, wanted: Any) -> float:
    """The F1 of what both hold, 0 to 1: each key counts once, and so does each value.

    Objects in a list are paired as they fit best, whatever their order; other lists are compared
    in their order, with what is left out or put in passed over.
    """
    both = _matching(found, wanted)
    return 2 * both / (_size(found) + _size(wanted))


def _size(value: Any) -> int:
    """How much there is to match: keys, plain values, and 1 for what is empty."""
    if isinstance(value, dict) and value:
        return sum(1 + _size(inner) for inner in value.values())
    if isinstance(value, list) and value:
        return sum(_size(inner) for inner in value)
    return 1


def _matching(found: Any, wanted: Any) -> int:
    if isinstance(found, dict) and isinstance(wanted, dict) and found and wanted:
        return sum(1 + _matching(found[key], wanted[key]) for key in found.keys() & wanted.keys())
    if isinstance(found, list) and isinstance(wanted, list) and found and wanted:
        if all(isinstance(value, dict) for value in (*found, *wanted)):
            return _paired(found, wanted)
        return _in_order(found, wanted)
    # JSON's true is no 1, and 1.0 is 1.
    same_kind = isinstance(found, bool) == isinstance(wanted, bool)
    return int(same_kind and found == wanted)


def _paired(found: Sequence[Any], wanted: Sequence[Any]) -> int:
    """The best pairs first, until one side has none left."""
    scores = sorted(
        (
            (_matching(one, other), -row, -column)
            for row, one in enumerate(found)
            for column, other in enumerate(wanted)
        ),
        reverse=True,
    )
    rows, columns, total = set(), set(), 0
    for score, row, column in scores:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            total += score
    return total


def _in_order(found: Sequence[Any], wanted: Sequence[Any]) -> int:
    """The most that can be matched without crossing (longest common subsequence, by weight)."""
    above = [0] * (len(wanted) + 1)
    for one in found:
        row = [0]
        for column, other in enumerate(wanted):
            row.append(max(row[-1], above[column + 1], above[column] + _matching(one, other)))
        above = row
    return above[-1]
