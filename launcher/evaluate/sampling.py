"""A sample of an evaluation's rows: the same at each start, and whatever order the rows are in."""

from __future__ import annotations

from collections.abc import Sequence

from contract.digest import digest_of_value
from contract.evaluation import Item

_SEED = 20_251_125


def sample(items: Sequence[Item], limit: int) -> list[Item]:
    """At most so many rows of each set, in their order.

    A row is drawn by the digest of the seed and of what it asks and expects: rows added to a set
    leave most of its sample as it was, and a larger sample holds the smaller one.
    """
    sets = dict.fromkeys((item.kind, item.set) for item in items)
    drawn: set[int] = set()
    for kind, name in sets:
        rows = [n for n, item in enumerate(items) if (item.kind, item.set) == (kind, name)]
        drawn.update(sorted(rows, key=lambda row: (_draw(items[row]), row))[:limit])
    return [item for number, item in enumerate(items) if number in drawn]


def _draw(item: Item) -> str:
    row = item.model_dump(include={"messages", "tools", "expected", "metric"})
    return digest_of_value({"seed": _SEED, **row})
