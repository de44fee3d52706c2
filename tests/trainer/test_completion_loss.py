"""The loss that trains: TRL's own, with less work."""

import pytest
import torch
from datasets import Dataset

from contract.recipe import TrainSection
from launcher.configuration import resolve
from trainer.lora import lora_config
from trainer.prepared import IGNORED
from trainer.train import chunked_head
from trainer.train.completion_loss import CompletionTrainer
from trainer.train.loading import load_base, policy_of
from trainer.train.micro_batches import MicroBatchLimits, joined_rows
from trainer.train.training import training_arguments

POSITIONS = 256
SETTINGS = ["quantize_base=none", "lora_dropout=0"]


@pytest.fixture(params=["", "gradient_checkpointing=true"], ids=["plain", "checkpointing"])
def trainer(request, untrained, tokenizer, tmp_path):
    settings = [*SETTINGS, *filter(None, [request.param])]
    recipe = resolve("smoke", settings=settings).section(TrainSection)
    rows = Dataset.from_dict({"input_ids": [[5, 6, 7]], "labels": [[IGNORED, 6, 7]]})
    return CompletionTrainer(
        limits=MicroBatchLimits(recipe.batch_size),
        model=load_base(untrained, recipe),
        args=training_arguments(recipe, policy_of(untrained, recipe), str(tmp_path)),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora_config(recipe),
    )


def batch(completions, width):
    """Rows whose prompts are as long as their completions leave them room."""
    ids = torch.randint(5, 2000, (len(completions), width), generator=torch.manual_seed(1))
    labels = torch.full_like(ids, IGNORED)
    for row, length in enumerate(completions):
        labels[row, width - length :] = ids[row, width - length :]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def loss_and_gradients(loss, model):
    model.zero_grad()
    loss.backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return loss.detach(), gradients


@pytest.mark.parametrize(
    ("completions", "width", "items"),
    [([3, 9], 30, None), ([1, 40], 60, 120), ([300, 200, 100], 310, None)],
    ids=["one piece", "of several batches", "in pieces"],
)
def test_it_is_trls_and_so_are_its_gradients(trainer, completions, width, items, monkeypatch):
    vocabulary = trainer.model.config.vocab_size
    monkeypatch.setattr(chunked_head, "PIECE_BYTES", POSITIONS * 4 * vocabulary)
    assert (sum(completions) > POSITIONS) == (completions[0] == 300)
    model = trainer.model.train()
    # B is zero at first, and A's gradient with it.
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    found = []
    for loss in (CompletionTrainer.compute_loss, CompletionTrainer.__base__.compute_loss):
        inputs = batch(completions, width)
        before = trainer._total_train_tokens
        found.append(
            loss_and_gradients(loss(trainer, model, inputs, num_items_in_batch=items), model)
        )
        assert trainer._total_train_tokens - before == len(completions) * width
    (ours, our_gradients), (trls, trls_gradients) = found
    torch.testing.assert_close(ours, trls, rtol=1e-6, atol=0)
    assert our_gradients.keys() == trls_gradients.keys()
    assert len(our_gradients) > 10
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, trls_gradients[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("packing_length", [None, 30, 64, 10_000])
def test_an_update_is_the_same_however_it_is_cut(trainer, packing_length):
    drawn = torch.manual_seed(2)
    rows = []
    for length in (20, 33, 12, 50, 7, 41):
        ids = torch.randint(5, 2000, (length,), generator=drawn).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORED] * (length // 2) + ids[length // 2 :]})
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    width = max(len(row["input_ids"]) for row in rows)
    whole = {
        "input_ids": [row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows],
        "labels": [row["labels"] + [IGNORED] * (width - len(row["labels"])) for row in rows],
        "attention_mask": [
            [1] * len(r["input_ids"]) + [0] * (width - len(r["labels"])) for r in rows
        ],
    }
    whole = {name: torch.tensor(values) for name, values in whole.items()}
    loss = CompletionTrainer.__base__.compute_loss(trainer, trainer.model.train(), whole)
    expected, expected_gradients = loss_and_gradients(loss, trainer.model)

    trainer._limits = MicroBatchLimits(4, packing_length)
    trainer.model.zero_grad()
    found = trainer.training_step(trainer.model, joined_rows(rows))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(
                parameter.grad, expected_gradients[name], rtol=1e-3, atol=1e-6
            )
