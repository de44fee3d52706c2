"""What the gate demands: `configs/gate.yaml`, read strictly."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import UserError
from launcher.configuration import as_problems, read_yaml
from launcher.project import CONFIGS, shown

POLICY_FILE = CONFIGS / "gate.yaml"


class Policy(BaseModel):
    """Shares of a full score, and what must be shown of each.

    `min_task_gain`: the task's score is above the base's by so much, and not by chance.
    `max_skill_loss`: all skills together are below the base's by less than this, and no single one
    is shown to be below by more; None takes the profile's.
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
        raise UserError.one(shown(path), "is not a mapping of keys to values")
    try:
        return Policy(**{str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise UserError(as_problems(error, lambda key: shown(path), Policy.model_fields)) from None
