"""Rows as the trainer takes them: tokens and labels in Arrow's arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.batches import batches
from trainer.prepared import PreparedRow, labels_of

if TYPE_CHECKING:
    from datasets import Dataset

    from trainer.train.micro_batches import Row


def longest_rows(dataset: Dataset, count: int) -> list[Row]:
    """So many of a training's rows, the longest first."""
    import pyarrow.compute
    import torch

    lengths = pyarrow.compute.list_value_length(dataset.data.column("input_ids"))
    ranked = pyarrow.compute.sort_indices(lengths, [("", "descending")])[:count].to_pylist()
    return [
        (torch.tensor(row["input_ids"]), torch.tensor(row["labels"]))
        for row in (dataset[number] for number in ranked)
    ]


def training_dataset(rows: Sequence[PreparedRow]) -> Dataset:
    """The rows' `input_ids` and `labels`: 8 bytes a token, where Python's lists take 45."""
    import pyarrow
    from datasets import Dataset

    schema = pyarrow.schema(
        {name: pyarrow.list_(pyarrow.int32()) for name in ("input_ids", "labels")}
    )
    pieces = [
        pyarrow.record_batch(
            {
                "input_ids": [row["input_ids"] for row in batch],
                "labels": [labels_of(row) for row in batch],
            },
            schema=schema,
        )
        for batch in batches(rows, lambda row: len(row["input_ids"]))
    ]
    return Dataset(pyarrow.Table.from_batches(pieces, schema=schema))
