"""The rows that `prepare` wrote, as the later stages read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from contract.conversation import Message, Tool

# The label of a token that does not count for the loss, in torch's cross entropy and transformers.
IGNORED = -100


class PreparedRow(TypedDict):
    """One conversation, rendered and tokenised; see `trainer.prepare.tokenizing.Tokens`."""

    where: str
    messages: list[Message]
    tools: list[Tool]
    input_ids: list[int]
    completion_mask: list[int]
    prompt_ids: list[int]


def read_prepared(path: Path) -> list[PreparedRow]:
    """Every row of `prepared/train.jsonl` or `prepared/held_out.jsonl`."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def labels_of(row: PreparedRow) -> list[int]:
    """The ids of tokens that are learned, `IGNORED` elsewhere: one mask for loss and scores."""
    return [
        token if learned else IGNORED
        for token, learned in zip(row["input_ids"], row["completion_mask"], strict=True)
    ]
