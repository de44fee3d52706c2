"""How well a model does on the held-out rows: its loss and the share of exact answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from contract.answer_text import answer_text
from contract.reasoning import opens_reasoning, without_reasoning
from contract.record import Record
from trainer.entrypoint import Reporter
from trainer.generation import greedy
from trainer.prepared import IGNORED, PreparedRow
from trainer.train.chunked_head import chunked_logits, next_tokens
from trainer.train.evaluation_mode import evaluating
from trainer.train.micro_batches import as_tensors, grouped, padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# Enough for what opens reasoning, with the white space behind it.
_PROMPT_END_TOKENS = 16


class Scores(Record):
    """`loss` in nats per completion token; `answers` in the order of the rows.

    `exact_match` is None where no row was to be answered.
    """

    loss: float
    exact_match: float | None
    answers: list[str]


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int],
    rows: Sequence[PreparedRow],
    *,
    answers: int,
    max_new_tokens: int,
    who: str,
    reporter: Reporter,
    loss: float | None = None,
) -> Scores:
    """Score a model on held-out rows.

    Args:
        ends: the ids that end an answer.
        rows: at least one; all of them count for the loss.
        answers: how many of them, from the first on, are answered and compared.
        who: "base" or "tuned", for the progress line.
        loss: the model's held-out loss, where it was measured before.
    """
    if loss is None:
        loss = held_out_loss(model, rows, who=who, reporter=reporter)
    model.eval()
    answered = rows[:answers]
    replies = greedy(
        model,
        ends,
        [row["prompt_ids"] for row in answered],
        max_new_tokens=max_new_tokens,
        on_batch=reporter.progress_callback(f"held-out answers, {who}", "rows"),
    )
    texts = [
        answer_of(
            tokenizer.decode(reply, skip_special_tokens=True),
            prompt=tokenizer.decode(row["prompt_ids"][-_PROMPT_END_TOKENS:]),
        )
        for reply, row in zip(replies, answered, strict=True)
    ]
    match = exact_match(texts, [expected_answer(row) for row in answered])
    return Scores(loss=loss, exact_match=match, answers=texts)


def answer_of(reply: str, *, prompt: str) -> str:
    """What a model said, without the reasoning before it; empty where it did not come to say it."""
    return without_reasoning(reply, opened=opens_reasoning(prompt)).strip()


def expected_answer(row: PreparedRow) -> str:
    """The text of the row's last turn, without the reasoning before it."""
    return answer_text(row["messages"][-1]).strip()


def exact_match(given: Sequence[str], expected: Sequence[str]) -> float | None:
    """The share of answers that equal the expected one, letter for letter; None without any.

    An empty answer is never right.
    """
    if not expected:
        return None
    pairs = zip(given, expected, strict=True)
    return sum(bool(one) and one == other for one, other in pairs) / len(expected)


def held_out_loss(
    model: PreTrainedModel,
    rows: Sequence[PreparedRow],
    *,
    who: str,
    reporter: Reporter,
    batch_size: int = 4,
) -> float:
    """Mean negative log-likelihood of the completion tokens, in nats per token.

    The model is left as it was: a training can go on, and ends with the same adapter. Only the
    positions that predict a completion's token go through the head (`chunked_logits`).

    Args:
        who: whose loss this is, for the progress line: "base", "tuned", "step 40".
    """
    total, tokens = 0.0, 0
    # Rows of much the same length together: there is little to pad.
    batches = grouped([len(row["input_ids"]) for row in rows], batch_size)
    done = 0
    with torch.no_grad(), evaluating(model):
        for numbers in batches:
            batch = padded([as_tensors(rows[number]) for number in numbers])
            inputs = {name: tensor.to(model.device) for name, tensor in batch.inputs.items()}
            targets = next_tokens(inputs.pop("labels"))
            wanted = targets != IGNORED
            expected = targets[wanted]
            tokens += len(expected)
            for logits in chunked_logits(model, inputs, wanted):
                total += cross_entropy(logits, expected[: len(logits)], reduction="sum").item()
                expected = expected[len(logits) :]
            done += len(numbers)
            reporter.progress(f"held-out loss, {who}", done=done, total=len(rows), unit="rows")
    return total / tokens
