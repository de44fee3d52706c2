"""What the trainer is given is what was prepared, token for token."""

from datasets import Dataset

from trainer.prepared import labels_of
from trainer.train.dataset import training_dataset


def test_rows_come_out_as_from_lists():
    # More than a batch, and lengths that differ.
    rows = [
        {
            "input_ids": [7, *range(number % 9), 151_935],
            "completion_mask": [0] * (number % 9 + 1) + [1],
        }
        for number in range(700)
    ]
    lists = {"input_ids": [row["input_ids"] for row in rows], "labels": list(map(labels_of, rows))}
    assert training_dataset(rows)[:] == Dataset.from_dict(lists)[:]
    assert training_dataset(rows)[699] == Dataset.from_dict(lists)[699]
    assert training_dataset(rows)[0]["labels"] == [-100, 151_935]
    assert len(training_dataset([])) == 0
