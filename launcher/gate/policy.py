"""What the gate demands: `configs/gate.yaml`, read strictly."""

from __future__ import annotations

import difflib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import Problem, UserError
from launcher.configuration import read_yaml
from launcher.project import CONFIGS, shown

POLICY_FILE = CONFIGS / "gate.yaml"


class Policy(BaseModel):
    """Shares of a full score, each demanded beyond its 95 % interval.

    `min_task_gain`: the task's score must be above the base's by more than this.
    `max_skill_loss`: no skill may be below the base's by more than this; None takes the profile's.
    `verified`: the served model must be proved to be the trained one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    min_task_gain: float = Field(ge=0, lt=1)
    max_skill_loss: float | None = Field(ge=0, le=1)
    verified: bool


def read_policy(path: Path = POLICY_FILE) -> Policy:
    """The policy in a file.

    Raises:
        UserError: no such file, unknown keys, missing keys or bad values, all of them named.
    """
    if not path.is_file():
        raise UserError.one("--policy", f"there is no file {shown(path)}")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError.one(shown(path), "is not a list of keys and values")
    try:
        return Policy(**{str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise UserError([_problem(path, detail) for detail in error.errors()]) from None


def _problem(path: Path, detail: object) -> Problem:
    found = dict(detail)  # type: ignore[call-overload]
    key = ".".join(str(part) for part in found["loc"])
    where = f"{shown(path)}: {key}"
    if found["type"] == "missing":
        return Problem(where=where, what="is missing")
    if found["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(Policy.model_fields), 1)
        known = ", ".join(Policy.model_fields)
        remedy = f"Did you mean {near[0]}?" if near else f"Known: {known}."
        return Problem(where=where, what="unknown key", remedy=remedy)
    message = str(found["msg"])
    return Problem(
        where=where, what=f"{message[0].lower()}{message[1:]} (it is {found['input']!r})"
    )
