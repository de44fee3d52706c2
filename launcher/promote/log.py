"""What was promoted when, why, and in place of what: `configs/promotions.jsonl`, a line each.

A promotion is in the log before the role changes, and a rollback after it. So whatever ends either
in between, the role stands at what the log's last promotion came from, and a rollback finishes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from contract.errors import UserError
from contract.record import Record
from launcher.evaluate.record import GateDecision
from launcher.project import CONFIGS, shown
from launcher.promote.models_file import Lines
from launcher.runtime.exclusive_lock import exclusive_lock

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

    `lines` are those of the file that it changed, so that a rollback gives them back letter for
    letter; None where it is a rollback. `digest` is the promoted model's on its server, `override`
    why it was promoted against the gate.
    """

    at: str
    did: Literal["promote", "rollback"]
    role: str
    before: str
    after: str
    lines: Lines | None = None
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

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the log and every role against other promotions, for as long as the block lasts."""
        with exclusive_lock(self.path.parent / ".promotions", wait=True):
            yield

    def append(self, entry: LogEntry) -> None:
        """Write an entry behind the others, and see that it is on the disk.

        Call it while the log is `held`: what a power cut left of an entry is taken away, and a last
        entry that has no line feed, as an editor leaves it, gets one.
        """
        with self.path.open("ab+") as file:
            file.seek(0)
            whole, feed, last = file.read().rpartition(b"\n")
            if _is_entry(last):
                file.write(b"\n")
            else:
                file.truncate(len(whole) + len(feed))
            file.write(f"{entry.model_dump_json()}\n".encode())
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

    def promotion_to(self, model_name: str) -> LogEntry | None:
        """The last promotion that pointed a role at this name; None where there is none.

        Raises:
            UserError: a line is no entry.
        """
        promoted = [entry for entry in self._entries() if entry.did == "promote"]
        return next((one for one in reversed(promoted) if one.after == model_name), None)

    def _entries(self) -> list[LogEntry]:
        if not self.path.exists():
            return []
        entries = []
        *whole, last = self.path.read_bytes().split(b"\n")
        if _is_entry(last):
            whole.append(last)
        # What else stands behind the last line feed, a power cut left of an entry.
        for number, line in enumerate(whole, 1):
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


def _is_entry(line: bytes) -> bool:
    try:
        LogEntry.model_validate_json(line)
    except ValidationError:
        return False
    return True
