"""Next-token distributions over the answers of a few rows, each kept as its most likely tokens.

A whole distribution has 150,000 numbers. Two of them are compared over the most likely tokens of
one and "all others" as a single outcome: that divergence is never larger than the whole one, and
with some dozens of tokens it is the same to four digits.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from contract.record import Record
from contract.reference import Agreement
from trainer.prepared import PreparedRow

# The probability of "all others" is a difference of two numbers near 1, in fp32.
_LEAST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class TopTokens:
    """The most likely next tokens at some positions: ids and log-probabilities, (positions, k)."""

    ids: torch.Tensor
    logprobs: torch.Tensor

    @classmethod
    def of(cls, logprobs: torch.Tensor, number: int) -> TopTokens:
        """The `number` most likely ones of whole distributions, (positions, vocabulary)."""
        best = logprobs.topk(min(number, logprobs.shape[-1]), dim=-1)
        return cls(best.indices, best.values)


class RowTokens(Record):
    """`TopTokens` of one row, as they are written down."""

    ids: list[list[int]]
    logprobs: list[list[float]]

    @classmethod
    def of(cls, top: TopTokens) -> RowTokens:
        """Rounded to what matters: a millionth of a nat."""
        return cls(
            ids=top.ids.tolist(),
            logprobs=[[round(value, 6) for value in line] for line in top.logprobs.tolist()],
        )

    def top_tokens(self) -> TopTokens:
        """What was written down."""
        return TopTokens(torch.tensor(self.ids), torch.tensor(self.logprobs))


class TrainedTokens(Record):
    """What the trained model finds most likely at the positions of `answer_positions`."""

    rows: list[RowTokens]


@dataclass
class Divergence:
    """The sums of which an agreement of two models is made."""

    kl: float = 0.0
    same_top: int = 0
    tokens: int = 0

    def add(self, expected: torch.Tensor, found: TopTokens) -> None:
        """Compare D(expected || found), where `expected` is whole: (positions, vocabulary)."""
        self._add(expected.gather(-1, found.ids), found.logprobs)
        self._same(expected.argmax(-1), found.ids[:, 0])

    def add_reversed(self, expected: TopTokens, found: torch.Tensor) -> None:
        """Compare D(expected || found), where `found` is whole."""
        self._add(expected.logprobs, found.gather(-1, expected.ids))
        self._same(expected.ids[:, 0], found.argmax(-1))

    def agreement(self) -> Agreement:
        """The means of what was added: at least one token."""
        return Agreement(
            mean_kl=max(self.kl / self.tokens, 0.0),
            same_top=self.same_top / self.tokens,
            tokens=self.tokens,
        )

    def _add(self, expected: torch.Tensor, found: torch.Tensor) -> None:
        expected, found = (_with_others(logprobs.double()) for logprobs in (expected, found))
        self.kl += float((expected.exp() * (expected - found)).sum())
        self.tokens += expected.shape[0]

    def _same(self, one: torch.Tensor, other: torch.Tensor) -> None:
        self.same_top += int((one == other).sum())


def answer_positions(
    rows: Sequence[PreparedRow], max_tokens: int
) -> list[tuple[PreparedRow, list[int]]]:
    """The first rows, each with the positions whose next token bears loss; so many in all."""
    found = []
    left = max_tokens
    for row in rows:
        if left <= 0:
            break
        # The token before each learned token predicts it.
        positions = [index for index, learned in enumerate(row["completion_mask"][1:]) if learned]
        if positions:
            found.append((row, positions[:left]))
        left -= len(positions)
    return found


def next_token_logprobs(model: Any, ids: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
    """The log-probabilities of all tokens after each of the positions, in fp32 on the CPU.

    Only these positions go through the head, where the model can be told so: on a large
    vocabulary it is most of the memory.
    """
    wanted = torch.tensor(positions, device=model.device)
    tokens = torch.tensor([list(ids)], device=model.device)
    with torch.no_grad():
        if "logits_to_keep" in inspect.signature(_innermost(model).forward).parameters:
            logits = model(input_ids=tokens, logits_to_keep=wanted, use_cache=False).logits[0]
        else:
            logits = model(input_ids=tokens, use_cache=False).logits[0][wanted]
        found: torch.Tensor = logits.float().log_softmax(-1).cpu()
    return found


def _innermost(model: Any) -> Any:
    # PEFT's wrapper takes anything and passes it on.
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _with_others(logprobs: torch.Tensor) -> torch.Tensor:
    others = (1 - logprobs.exp().sum(-1, keepdim=True)).clamp_min(_LEAST_PROBABILITY).log()
    # What a program rounds to zero is not known to be less likely than this.
    return torch.cat([logprobs.clamp_min(-100.0), others], dim=-1)
