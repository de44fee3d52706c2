"""An update's rows in pieces that fit into memory, each row in one of them.

Which rows share an update is the sampler's business and the recipe's (`batch_size` times
`gradient_accumulation_steps`). How they are cut into micro-batches changes their sum by rounding
alone, so that it can follow the rows' lengths: what is packed has no padding at all, and what is
padded stands beside rows of its own length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from trainer.prepared import IGNORED, PreparedRow, labels_of

# Input ids and labels of a row, (seq,) each.
Row = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once.

    Attributes:
        inputs: what the model's `forward` takes, and the labels.
        packed: the lengths of the rows, where they stand behind each other; else nothing.
    """

    inputs: dict[str, torch.Tensor]
    packed: tuple[int, ...] = ()


def positions_of(lengths: Sequence[int]) -> torch.Tensor:
    """The place of each token in its own row, of rows behind each other: (1, seq)."""
    return torch.cat([torch.arange(length) for length in lengths])[None]


@dataclass(frozen=True)
class MicroBatchLimits:
    """How much goes through the model at once.

    Attributes:
        rows: of a micro-batch at most, where they are padded.
        packed_tokens: of a micro-batch at most, where rows are packed; a longer row is one of its
            own. None where rows are padded.
    """

    rows: int
    packed_tokens: int | None = None


def as_tensors(row: PreparedRow) -> Row:
    """A prepared row's input ids and labels."""
    return torch.tensor(row["input_ids"]), torch.tensor(labels_of(row))


def joined_rows(rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
    """An update's rows as a data loader hands them on; `split_rows` takes them apart again."""
    joined = {
        name: torch.tensor([token for row in rows for token in row[name]])[None]
        for name in ("input_ids", "labels")
    }
    return {**joined, "lengths": torch.tensor([len(row["input_ids"]) for row in rows])}


def split_rows(joined: Mapping[str, torch.Tensor]) -> list[Row]:
    """The rows that were joined."""
    lengths = joined["lengths"].tolist()
    ids, labels = (joined[name][0].cpu().split(lengths) for name in ("input_ids", "labels"))
    return list(zip(ids, labels, strict=True))


def micro_batches(rows: Sequence[Row], limits: MicroBatchLimits) -> list[MicroBatch]:
    """The micro-batches of an update."""
    lengths = [len(ids) for ids, _ in rows]
    if limits.packed_tokens is None:
        make, groups = padded, grouped(lengths, limits.rows)
    else:
        make, groups = packed, fitted(lengths, limits.packed_tokens)
    return [make([rows[number] for number in group]) for group in groups]


def grouped(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """The numbers of rows of much the same length, so many together."""
    ranked = _longest_first(lengths)
    return [ranked[first : first + batch_size] for first in range(0, len(ranked), batch_size)]


def fitted(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """The numbers of rows that fit together, by best fit decreasing (Johnson, 1974)."""
    groups: list[list[int]] = []
    room: list[int] = []
    for number in _longest_first(lengths):
        fitting = [index for index, free in enumerate(room) if free >= lengths[number]]
        if fitting:
            best = min(fitting, key=lambda index: room[index])
        else:
            best = len(groups)
            groups.append([])
            room.append(capacity)
        groups[best].append(number)
        room[best] -= lengths[number]
    return groups


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda number: -lengths[number])


def padded(rows: Sequence[Row]) -> MicroBatch:
    """The rows below each other, filled up on the right: (rows, longest)."""
    shape = (len(rows), max(len(ids) for ids, _ in rows))
    inputs = {
        "input_ids": torch.zeros(shape, dtype=torch.long),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "labels": torch.full(shape, IGNORED),
    }
    for index, (ids, labels) in enumerate(rows):
        inputs["input_ids"][index, : len(ids)] = ids
        inputs["attention_mask"][index, : len(ids)] = 1
        inputs["labels"][index, : len(ids)] = labels
    return MicroBatch(inputs)


def packed(rows: Sequence[Row]) -> MicroBatch:
    """The rows behind each other: (1, all of their tokens)."""
    lengths = tuple(len(ids) for ids, _ in rows)
    labels = torch.cat([labels for _, labels in rows])
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    # No row's last token predicts the next row's first.
    labels[starts] = IGNORED
    inputs = {
        "input_ids": torch.cat([ids for ids, _ in rows])[None],
        "labels": labels[None],
        "position_ids": positions_of(lengths),
    }
    return MicroBatch(inputs, packed=lengths)
