"""The manifest: which inputs, by which stages, made which outputs. Written last and whole."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from contract.base import BaseIdentity
from contract.recipe import Recipe

CONTRACT_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageRecord(_Record):
    """The image that a stage ran in, by digest, and what built it: others may pack otherwise."""

    digest: str
    builder: str


class StageRecord(_Record):
    """One finished stage: its key, what it read and what it left, by digest.

    `python` is the one that it ran on, which is the image's or the environment's; stages that an
    earlier version recorded have none.
    """

    stage: str
    key: str
    command: list[str]
    engine: str
    image: ImageRecord | None = None
    python: str | None = None
    started: str
    seconds: float
    inputs: dict[str, str]
    outputs: dict[str, str]
    result: dict[str, Any]


class Check(_Record):
    """One line of what was proved about a served model."""

    name: str
    passed: bool
    found: str


class Verification(_Record):
    """The last proof that a server serves this run's model: under which name, which server.

    `model_digest` is of the served files and settings, the same on every server.
    """

    model: str
    model_digest: str
    server: str
    passed: bool
    checks: list[Check]


class Manifest(_Record):
    """Everything a stranger needs to make this model again and compare it."""

    contract_version: int = CONTRACT_VERSION
    affineur_version: str
    key: str
    recipe: Recipe
    base: BaseIdentity
    data: dict[str, str]
    locks: dict[str, str]
    code: dict[str, str]
    versions: dict[str, str]
    machine: dict[str, Any]
    created: str
    stages: list[StageRecord]
    verification: Verification | None = None
