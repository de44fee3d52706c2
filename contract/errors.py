"""What goes wrong, and how a process ends: one family of exceptions with a text and an exit code.

Both wings raise `UserError` for what a person can fix; the entry points turn every `AffineurError`
into its text and its exit code. Any other exception that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator
from enum import IntEnum

from pydantic import BaseModel, ConfigDict

# How many are shown, and how many are kept of a file in which every row is bad.
_MAX_SHOWN = 20
_MAX_KEPT = 1000


class ExitCode(IntEnum):
    """The exit codes of this project's processes.

    3 is an answer and no error: the gate refuses the model, or the rebuilt run differs.
    """

    DONE = 0
    BUG = 1
    USER_ERROR = 2
    GATE_REFUSED = 3
    DIFFERS = 3
    INTERRUPTED = 130


class Problem(BaseModel):
    """One thing that is wrong: where it is, what it is, and what to do about it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.what}" if self.where else self.what
        return f"{sentence}. {self.remedy}" if self.remedy else sentence


class AffineurError(Exception):
    """An end that is explained: the text for people, and the exit code."""

    exit_code = ExitCode.BUG

    def text(self) -> str:
        """What a person reads on standard error."""
        return f"affineur: {self}"


class UserError(AffineurError):
    """Bad input or a bad condition, with every problem that was found.

    Attributes:
        problems: what is wrong.
        more: how many were found beyond those.
    """

    exit_code = ExitCode.USER_ERROR

    def __init__(self, problems: Iterable[Problem], more: int = 0) -> None:
        self.problems = tuple(problems)
        self.more = more
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def one(cls, where: str, what: str, remedy: str = "") -> UserError:
        """The common case of a single problem."""
        return cls([Problem(where=where, what=what, remedy=remedy)])

    def text(self) -> str:
        """One sentence for one problem, a counted list for several."""
        found = len(self.problems) + self.more
        if found == 1:
            return f"affineur: {self.problems[0]}"
        lines = [f"affineur: {found} problems"]
        lines += [f"  {problem}" for problem in self.problems[:_MAX_SHOWN]]
        if found > _MAX_SHOWN:
            lines.append(f"  ... and {found - _MAX_SHOWN} more")
        return "\n".join(lines)


class Problems:
    """Problems as they are found, each once: the first 1,000 are kept, further ones counted.

    Attributes:
        more: how many were found beyond those that are kept.
    """

    def __init__(self) -> None:
        """None is found yet."""
        self._kept: dict[Problem, None] = {}
        self.more = 0

    def __bool__(self) -> bool:
        return bool(self._kept)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._kept)

    def append(self, problem: Problem) -> None:
        """Add one, unless it was found before."""
        if len(self._kept) < _MAX_KEPT:
            self._kept[problem] = None
        elif problem not in self._kept:
            self.more += 1

    def error(self) -> UserError:
        """The error that names them."""
        return UserError(self._kept, self.more)


def did_you_mean(given: str, known: Iterable[str], otherwise: str = "") -> str:
    """`Did you mean epochs?` where one of the known words is near; `otherwise` where none is."""
    near = difflib.get_close_matches(given, [str(word) for word in known], 1)
    return f"Did you mean {near[0]}?" if near else otherwise


def unknown_name(given: str, known: Collection[str], *, kind: str, where: str) -> Problem:
    """`--metric: there is no metric 'exakt'. Did you mean exact? Known: exact, number.`"""
    hint = did_you_mean(given, known)
    return Problem(
        where=where,
        what=f"there is no {kind} {given!r}",
        remedy=f"{hint} Known: {', '.join(known)}.".lstrip(),
    )
