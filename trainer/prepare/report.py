"""What the dataset looks like in tokens: lengths, truncated rows, repetitions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contract.results.prepare import LengthFigures, PrepareResult, TruncatedRow
from trainer.prepare.splitting import DatasetRow, conflicts, duplicates, unread_columns
from trainer.prepare.tokenizing import Tokens


@dataclass(frozen=True)
class TokenizedRow:
    """A conversation and its tokens: all of them, or those of one of its answers of `of`."""

    row: DatasetRow
    tokens: Tokens
    of: int = 1

    @property
    def where(self) -> str:
        """The row's place in the file, and which of its answers this is where it has several."""
        answer = self.row.conversation.messages[: self.tokens.answer + 1]
        number = sum(message["role"] == "assistant" for message in answer)
        return self.row.where + (f" answer {number}" if self.of > 1 else "")

    def as_json(self) -> dict[str, Any]:
        """The row as the training stage reads it."""
        return {
            "where": self.where,
            "messages": self.row.conversation.messages[: self.tokens.answer + 1],
            "tools": self.row.conversation.tools,
            "input_ids": self.tokens.input_ids,
            "completion_mask": self.tokens.completion_mask,
            "prompt_ids": self.tokens.prompt_ids,
        }


def report_on(
    train: Sequence[TokenizedRow],
    held_out: Sequence[TokenizedRow],
    *,
    both: Sequence[tuple[str, str]],
    max_length: int,
) -> PrepareResult:
    """Describe the rows as they are before any is truncated.

    Args:
        train: at least one.
        both: pairs of a training row and a held-out row with the same question, left out of
            `held_out`.
        max_length: in tokens.
    """
    rows = [*train, *held_out]
    conversations = list({row.row.where: row.row for row in rows}.values())
    cut = [row for row in rows if len(row.tokens.input_ids) > max_length]
    no_room = [row for row in cut if not row.tokens.cut_to(max_length).learned_tokens]
    several = {row.row.where for row in rows if row.of > 1}
    lengths = sorted(len(row.tokens.input_ids) for row in rows)
    return PrepareResult(
        rows=len(conversations) + len(both),
        train=len(train),
        held_out=len(held_out),
        max_length=max_length,
        tokens=length_figures(lengths),
        answer_tokens=length_figures(sorted(row.tokens.learned_tokens for row in rows)),
        lengths=lengths,
        cut=[
            TruncatedRow(where=row.where, tokens=len(row.tokens.input_ids) - max_length)
            for row in cut
        ],
        no_room=[row.where for row in no_room],
        duplicates=duplicates(conversations),
        conflicts=conflicts(conversations),
        in_both=list(both),
        laid_out=[row.where for row in conversations if row.where in several],
        unread=unread_columns([row.conversation for row in conversations]),
    )


def length_figures(lengths: Sequence[int]) -> LengthFigures:
    """Minimum, median, 95th percentile (nearest rank) and maximum of one or more sorted lengths."""
    rank = -(-95 * len(lengths) // 100)
    return LengthFigures(
        min=lengths[0],
        median=round(statistics.median(lengths)),
        p95=lengths[rank - 1],
        max=lengths[-1],
    )
