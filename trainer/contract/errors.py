"""What a person can mend: a problem is what is wrong, where, and the remedy.

Both wings raise `UserError`; the entry points turn it into sentences and exit code 2.
Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from pydantic import BaseModel, ConfigDict


class ExitCode(IntEnum):
    """What a process of this project says when it ends."""

    DONE = 0
    BUG = 1
    USER_CAN_MEND = 2
    GATE_SAID_NO = 3
    INTERRUPTED = 130


class Problem(BaseModel):
    """One thing that is wrong: where it stands, what it is, and what to do about it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.what}" if self.where else self.what
        return f"{sentence}. {self.remedy}" if self.remedy else sentence


class UserError(Exception):
    """Bad input or a bad condition, with every problem that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def one(cls, where: str, what: str, remedy: str = "") -> UserError:
        """The common case of a single problem."""
        return cls([Problem(where=where, what=what, remedy=remedy)])
