"""The loss that trains: TRL's own, with less work."""

import pytest
import torch
from datasets import Dataset

from contract.recipe import TrainSection
from launcher.configuration import resolve
from trainer.lora import lora_config
from trainer.prepared import IGNORED
from trainer.train.chunked_head import POSITIONS
from trainer.train.completion_loss import CompletionTrainer
from trainer.train.loading import load_base
from trainer.train.training import training_arguments

SETTINGS = ["quantize_base=none", "lora_dropout=0"]


@pytest.fixture(params=["", "gradient_checkpointing=true"], ids=["plain", "checkpointing"])
def trainer(request, untrained, tokenizer, tmp_path):
    settings = [*SETTINGS, *filter(None, [request.param])]
    recipe = resolve("smoke", settings=settings).section(TrainSection)
    rows = Dataset.from_dict({"input_ids": [[5, 6, 7]], "labels": [[IGNORED, 6, 7]]})
    return CompletionTrainer(
        model=load_base(untrained, recipe),
        args=training_arguments(recipe, 512, str(tmp_path)),
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
def test_it_is_trls_and_so_are_its_gradients(trainer, completions, width, items):
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
