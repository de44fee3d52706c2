"""Rows in batches that are small in memory, however long the rows are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_ITEMS, _CHARACTERS = 256, 1 << 18


def batches(items: Iterable[Item], characters: Callable[[Item], int]) -> Iterator[list[Item]]:
    """All items in their order: 256 at once, or as many as have 262,144 characters."""
    batch: list[Item] = []
    total = 0
    for item in items:
        batch.append(item)
        total += characters(item)
        if len(batch) == _ITEMS or total >= _CHARACTERS:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
