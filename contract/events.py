"""What a stage reports while it works: JSON events, one per line, on its standard output.

The trainer writes them and the launcher reads them; a log, a progress bar and a test all read
the same. A stage's other output (libraries, warnings, tracebacks) goes to standard error.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from contract.errors import Problem
from contract.record import Record


class Started(Record):
    """The first word of every stage: which Python it runs on."""

    event: Literal["started"] = "started"
    python: str


class Progress(Record):
    """How far the work is; `figures` are shown beside the bar (loss, tokens/s, ...)."""

    event: Literal["progress"] = "progress"
    doing: str
    done: int
    total: int
    unit: str
    figures: dict[str, float] = Field(default_factory=dict)


class Metrics(Record):
    """What was measured up to a training's step, under the names that trackers show.

    A training that goes on from a checkpoint says those of the steps before it again.
    """

    event: Literal["metrics"] = "metrics"
    step: int
    values: dict[str, float]


class Note(Record):
    """A line for people that they should see even when all goes well."""

    event: Literal["note"] = "note"
    text: str


class Result(Record):
    """What the stage found out: `contract.results` has a module for each stage."""

    event: Literal["result"] = "result"
    values: dict[str, JsonValue]


class Failed(Record):
    """Why the stage stopped, when a person can fix it; exit code 2 follows.

    `more`: how many problems there are beyond those that are named.
    """

    event: Literal["failed"] = "failed"
    problems: list[Problem]
    more: int = 0


class MemoryFallback(Record):
    """What the stage would go on with, were it killed for lack of memory from here on.

    It holds until the stage says another one, or ends. The launcher keeps it in a file (see
    `contract.paths.memory_fallback`), for the stage to read when it is started again.

    Attributes:
        changed: the keys of the recipe that would be other ones, all of them; None where less
            would not help.
        text: what would change, in words; empty where nothing would.
    """

    event: Literal["memory_fallback"] = "memory_fallback"
    changed: dict[str, JsonValue] | None
    text: str = ""


_Events = Started | Progress | Metrics | Note | Result | Failed | MemoryFallback
Event = Annotated[_Events, Field(discriminator="event")]
_EVENT: TypeAdapter[_Events] = TypeAdapter(Event)


def parse_event(line: str) -> _Events | None:
    """The event on this line, or None where the line is something else (a stray print)."""
    if not line.startswith("{"):
        return None
    try:
        return _EVENT.validate_json(line)
    except ValidationError:
        return None
