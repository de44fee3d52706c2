"""What was promoted when, why, and in place of what: `configs/promotions.jsonl`, a line each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from contract.errors import UserError
from contract.record import Record
from launcher.evaluate.record import GateDecision
from launcher.project import CONFIGS, shown

LOG_FILE = CONFIGS / "promotions.jsonl"


class EnvChange(Record):
    """A variable of an application's that was changed along with the role.

    `before` is its value, and `written` what stood behind its name, quotes and all.
    """

    file: str
    key: str
    before: str | None
    after: str
    written: str | None = None


class LogEntry(Record):
    """One change of a role: `before` and `after` are values of its `model_name`.

    `digest` is the promoted model's on its server, `override` why it was promoted against the gate.
    """

    at: str
    did: Literal["promote", "rollback"]
    role: str
    before: str
    after: str
    model: str
    digest: str
    run: str
    gate: GateDecision | None
    override: str | None
    env: EnvChange | None


class PromotionLog:
    """The log's file; it only grows."""

    def __init__(self, path: Path = LOG_FILE) -> None:
        self.path = path

    def append(self, entry: LogEntry) -> None:
        """Write an entry behind the others, and see that it is on the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(entry.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def standing(self, role: str) -> LogEntry | None:
        """The promotion that the role stands at: the last that no rollback took back.

        Raises:
            UserError: a line is no entry.
        """
        stack: list[LogEntry] = []
        for entry in self._entries():
            if entry.role != role:
                continue
            if entry.did == "promote":
                stack.append(entry)
            elif stack:
                stack.pop()
        return stack[-1] if stack else None

    def _entries(self) -> list[LogEntry]:
        if not self.path.exists():
            return []
        entries = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").split("\n"), 1):
            if not line.strip():
                continue
            try:
                entries.append(LogEntry.model_validate_json(line))
            except ValidationError as error:
                raise UserError.one(
                    f"{shown(self.path)}:{number}",
                    f"is not a valid entry of the promotion log: {error.errors()[0]['msg']}",
                    "Restore the line from version control.",
                ) from None
        return entries
