"""The rows that a run's stage `prepare` wrote, as conversations: what they say, and not how."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from contract.conversation import Message, Tool
from contract.digest import digest_of_value


class PreparedConversation(NamedTuple):
    """A row's turns, the last of them the answer, and its tools."""

    messages: list[Message]
    tools: list[Tool]

    @property
    def question_digest(self) -> str:
        """Of all but the answer."""
        return digest_of_value([self.messages[:-1], self.tools])


def conversations(file: Path) -> Iterator[PreparedConversation]:
    """The rows of `prepared/train.jsonl` or `prepared/held_out.jsonl`, without their tokens."""
    with file.open("rb") as rows:
        for line in rows:
            # Tokens are most of a line. Text has its quotes escaped, and stands before them.
            head, found, _ = line.rpartition(b', "input_ids": [')
            row = json.loads(head + b"}" if found else line)
            yield PreparedConversation(row["messages"], row["tools"])


def counted_rows(file: Path) -> Counter[str]:
    """How often each row is there, by its digest."""
    return Counter(digest_of_value(row) for row in conversations(file))
