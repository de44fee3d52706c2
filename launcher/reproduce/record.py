"""What a reproduction found: a run that was rebuilt, each of its files compared."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from contract.record import Record

REPRODUCTION = Path("reproduction.json")

# `times differ`: all but how long it took is the same. `unexpected`: the run made no such file.
State = Literal["identical", "times differ", "differs", "missing", "unexpected"]
_AS_PROMISED: tuple[State, ...] = ("identical", "times differ")


class Condition(Record):
    """Something that bytes may depend on and no digest covers: as it was, and as it is here."""

    name: str
    there: str
    here: str

    @property
    def same(self) -> bool:
        """Whether it is here as it was."""
        return self.there == self.here


class TensorDifference(Record):
    """A tensor that differs, and how.

    `largest` is the largest absolute difference of a value; None where values cannot be compared:
    another shape or type, a type whose values are not read, or only one file has it.
    """

    name: str
    what: str
    largest: float | None = None


class FileComparison(Record):
    """A file of the run beside the one that was rebuilt.

    Attributes:
        stage: which made it.
        digest: of the run's file, as its manifest has it; None where it made no such file.
        rebuilt: of the rebuilt one; None where it was not made.
        where: what is known of where they differ, in words, the most telling first.
        tensors: those that differ, where the run's own file is at hand.
    """

    file: str
    stage: str
    state: State
    digest: str | None
    rebuilt: str | None
    where: list[str] = Field(default_factory=list)
    tensors: list[TensorDifference] = Field(default_factory=list)

    @property
    def as_promised(self) -> bool:
        """Whether it is what the same inputs are to make."""
        return self.state in _AS_PROMISED


class Reproduction(Record):
    """Which run was rebuilt, under which conditions, and what came of it.

    Attributes:
        run: its model and its key.
        manifest: the digest of its manifest.
        version: of this project, that rebuilt it; the run's own is in its manifest.
        other_code: what of this project is not what made the run, where that was asked for.
        conditions: what no digest covers.
    """

    remedy: ClassVar[str] = "Reproduce the run again: ./invoke reproduce."

    run: str
    manifest: str
    version: str
    engine: str
    created: str
    other_code: list[str]
    conditions: list[Condition]
    files: list[FileComparison]

    @property
    def identical(self) -> bool:
        """Whether all that should be identical is."""
        return all(file.as_promised for file in self.files)
