"""The probe finds the largest micro-batch, and changes nothing of the training behind it."""

import io

import pytest
import torch

from contract import paths
from contract.paths import StagePaths
from launcher.configuration import resolve
from tests.trainer.test_memory_ladder import prepared
from trainer.entrypoint import Reporter
from trainer.train import completion_loss
from trainer.train.dataset import longest_rows, training_dataset
from trainer.train.early_stopping import trained_weights
from trainer.train.memory_probe import largest_micro_batch
from trainer.train.micro_batches import MicroBatchLimits
from trainer.train.peak_memory import PeakMemory
from trainer.train.training import train_adapter

SETTINGS = [
    *("epochs=1", "batch_size=4", "gradient_accumulation_steps=1", "lora_dropout=0.3"),
    *("quantize_base=none", "logging_steps=1", "eval_steps=null", "early_stopping_patience=0"),
]


def rows(*lengths):
    return [
        {"input_ids": list(range(1, length + 1)), "completion_mask": [0] + [1] * (length - 1)}
        for length in lengths
    ]


def shape(lengths, count, **limits):
    longest = longest_rows(training_dataset(rows(*lengths)), count)
    return tuple(largest_micro_batch(longest, MicroBatchLimits(**limits)).inputs["input_ids"].shape)


def test_padded_it_has_the_longest_rows():
    assert shape([5, 30, 7, 20, 6], 4, rows=2) == (2, 30)


@pytest.mark.parametrize(
    ("packing_length", "tokens"),
    # Full to the last token; as many as an update has; a row that is longer than all of it.
    [(40, 40), (1000, 30 + 20 + 7 + 6), (10, 30)],
)
def test_packed_it_is_as_full_as_one_can_be(packing_length, tokens):
    found = shape([5, 30, 7, 20, 6], 4, rows=2, packed_tokens=packing_length)
    assert found == (1, tokens)


def train(folder, base, tokenizer):
    trained = train_adapter(
        StagePaths(run=folder, base=base),
        tokenizer,
        [prepared(number) for number in range(12)],
        [],
        recipe=resolve("smoke", settings=SETTINGS),
        reporter=Reporter(io.StringIO()),
    )
    metrics = (folder / paths.METRICS).read_text()
    return trained, trained_weights(trained.model), metrics.count("\n")


def test_it_changes_nothing(untrained, tokenizer, tmp_path, monkeypatch):
    tried = []
    try_out = completion_loss.CompletionTrainer.try_out

    def follow(trainer, micro_batch):
        tried.append(micro_batch)
        try_out(trainer, micro_batch)

    found = []
    for instead in (follow, lambda trainer, micro_batch: None):
        monkeypatch.setattr(completion_loss.CompletionTrainer, "try_out", instead)
        folder = tmp_path / str(len(found))
        folder.mkdir()
        found.append(train(folder, untrained, tokenizer))
    (probed, weights, lines), (_, others, other_lines) = found
    assert len(tried) == 1
    assert lines == other_lines == 3
    assert [one.loss for one in probed.losses] == [one.loss for one in found[1][0].losses]
    assert all(weights[name].equal(others[name]) for name in others)
    # It is of this process, with torch in it.
    assert 200e6 < probed.probe_bytes < 20e9
    assert probed.peak_bytes > 200e6


def test_what_is_taken_raises_the_peak():
    memory = PeakMemory("cpu")
    memory.restart()
    before = memory.bytes()
    taken = torch.ones(200 << 20, dtype=torch.uint8)
    assert 190 << 20 < memory.bytes() - before < 230 << 20
    del taken
    memory.restart()
    assert memory.bytes() - before < 50 << 20
