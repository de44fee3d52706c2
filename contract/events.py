"""What a stage says while it works: JSON events, one a line, on its standard output.

The trainer writes them, the launcher reads them; a log, a progress bar and a test read the
same thing. A stage's other output (libraries, warnings, tracebacks) goes to standard error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contract.errors import Problem


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Started(_Event):
    """The first word of every stage: which Python it runs on."""

    event: Literal["started"] = "started"
    python: str


class Progress(_Event):
    """How far the work is; `figures` are shown beside the bar (loss, tokens/s, ...)."""

    event: Literal["progress"] = "progress"
    doing: str
    done: int
    total: int
    unit: str
    figures: dict[str, float] = {}


class Note(_Event):
    """A line for people that they should see even when all goes well."""

    event: Literal["note"] = "note"
    text: str


class Result(_Event):
    """What the stage found out, for the manifest and the summary."""

    event: Literal["result"] = "result"
    values: dict[str, Any]


class Failed(_Event):
    """Why the stage stopped, when a person can mend it. Exit code 2 follows."""

    event: Literal["failed"] = "failed"
    problems: list[Problem]


Event = Annotated[Started | Progress | Note | Result | Failed, Field(discriminator="event")]
_EVENT: TypeAdapter[Started | Progress | Note | Result | Failed] = TypeAdapter(Event)


def parse_event(line: str) -> Started | Progress | Note | Result | Failed | None:
    """The event on this line, or None where the line is something else (a stray print)."""
    if not line.startswith("{"):
        return None
    try:
        return _EVENT.validate_json(line)
    except ValidationError:
        return None
