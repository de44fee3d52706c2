"""The rows that `prepare` wrote, as the later stages read them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict, overload

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


class PreparedRows(Sequence[PreparedRow]):
    """The rows of a file, each read when it is asked for. In memory are 8 bytes of each.

    A row of 200 tokens takes some 10 KB as Python's own numbers.
    """

    def __init__(self, path: Path) -> None:
        """Find out where each row begins."""
        self._path = path
        self._begins = array("Q", [0])
        with path.open("rb") as file:
            for line in file:
                self._begins.append(self._begins[-1] + len(line))

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __iter__(self) -> Iterator[PreparedRow]:
        with self._path.open("rb") as file:
            for line in file:
                yield json.loads(line)

    @overload
    def __getitem__(self, index: int) -> PreparedRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[PreparedRow]: ...
    def __getitem__(self, index: int | slice) -> PreparedRow | list[PreparedRow]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        begin = self._begins[range(len(self))[index]]
        with self._path.open("rb") as file:
            file.seek(begin)
            row: PreparedRow = json.loads(file.readline())
        return row


def read_prepared(path: Path) -> PreparedRows:
    """The rows of `prepared/train.jsonl` or `prepared/held_out.jsonl`."""
    return PreparedRows(path)


def read_messages(path: Path) -> Iterator[tuple[str, list[Message]]]:
    """Where each row stands and its turns, without its tokens, which are most of the file."""
    with path.open("rb") as file:
        for line in file:
            # Text has its quotes escaped, and tools stand before the tokens.
            head, found, _ = line.rpartition(b', "input_ids": [')
            row = json.loads(head + b"}" if found else line)
            yield row["where"], row["messages"]


def labels_of(row: PreparedRow) -> list[int]:
    """The ids of tokens that are learned, `IGNORED` elsewhere: one mask for loss and scores."""
    return [
        token if learned else IGNORED
        for token, learned in zip(row["input_ids"], row["completion_mask"], strict=True)
    ]
