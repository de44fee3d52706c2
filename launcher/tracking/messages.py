"""What the launcher tells the process that writes for trackers, a line of JSON each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, TypeAdapter

from contract.events import Metrics
from contract.recipe import TrackerName
from contract.record import Record

Status = Literal["finished", "failed", "stopped"]


class Begin(Record):
    """A training begins.

    Attributes:
        folder: what trackers that write files may write into; begun anew.
        model, run: the model's name and the run's.
        parameters: the recipe.
        tags: what else tells runs apart, such as digests of data and base.
        mlflow_uri: where MLflow's metrics go.
    """

    message: Literal["begin"] = "begin"
    trackers: list[TrackerName]
    folder: Path
    model: str
    run: str
    parameters: dict[str, JsonValue]
    tags: dict[str, str]
    mlflow_uri: str


class End(Record):
    """It is over; `values` are what was measured once, such as the scores."""

    message: Literal["end"] = "end"
    status: Status
    values: dict[str, float] = Field(default_factory=dict)


class Failure(Record):
    """What is said back, for each tracker that failed: it was told nothing after that."""

    tracker: TrackerName
    text: str


Message = Begin | Metrics | End
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


def parse_message(line: str) -> Message:
    """The message on a line."""
    return _MESSAGE.validate_json(line)
