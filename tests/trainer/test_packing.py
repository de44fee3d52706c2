"""Packed rows know nothing of each other: their logits are those of each row alone."""

import pytest
import torch
from datasets import Dataset

from contract.recipe import TrainSection
from launcher.configuration import resolve
from tests import bases
from trainer.lora import lora_config
from trainer.prepared import IGNORED
from trainer.train.completion_loss import CompletionTrainer
from trainer.train.loading import load_base
from trainer.train.training import training_arguments

LENGTHS = (20, 33, 12, 50, 7, 41)
MAX_LENGTH = 64


def rows():
    """Of random tokens; the second half of each is its completion."""
    drawn = torch.manual_seed(1)
    for length in LENGTHS:
        ids = torch.randint(5, 2000, (length,), generator=drawn).tolist()
        yield {"input_ids": ids, "labels": [IGNORED] * (length // 2) + ids[length // 2 :]}


# The two kinds of attention that a base's class may take.
@pytest.fixture(params=["smoke", "gemma2"])
def packed(request, untrained, tokenizer, tmp_path):
    """A trainer's model, and the one batch that its six rows make."""
    base = bases.make(request.param, untrained, tmp_path / "base")
    settings = ["quantize_base=none", "lora_dropout=0", "packing=true"]
    recipe = resolve("smoke", settings=settings).section(TrainSection)
    trainer = CompletionTrainer(
        model=load_base(base, recipe),
        args=training_arguments(recipe, MAX_LENGTH, str(tmp_path)),
        train_dataset=Dataset.from_list(list(rows())),
        processing_class=tokenizer,
        peft_config=lora_config(recipe),
    )
    (batch,) = trainer.get_train_dataloader()
    return trainer.model.eval(), batch


def apart(batch):
    """Where each row begins and ends in the batch."""
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    return list(zip(starts, [*starts[1:], batch["input_ids"].shape[1]], strict=True))


def logits(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits[0]


def largest_difference(model, batch, together):
    ids = batch["input_ids"]
    differences = [
        (logits(model, input_ids=ids[:, first:last]) - together[first:last]).abs().max()
        for first, last in apart(batch)
    ]
    return max(differences).item()


def test_the_logits_are_those_of_each_row_alone(packed):
    model, batch = packed
    assert sorted(last - first for first, last in apart(batch)) == sorted(LENGTHS)
    given = {name: value for name, value in batch.items() if name != "labels"}
    assert largest_difference(model, batch, logits(model, **given)) < 1e-5


def test_rows_that_see_each_other_would_be_noticed(packed):
    model, batch = packed
    mixed = logits(model, input_ids=batch["input_ids"])
    assert largest_difference(model, batch, mixed) > 1e-3


def test_no_completion_loses_a_token(packed):
    _, batch = packed
    # The first token of a row has no one to say it; here it belongs to the prompt.
    assert (batch["labels"] != IGNORED).sum() == sum(n - n // 2 for n in LENGTHS)
