"""The manifest: which stages made which outputs from which inputs. Written last, atomically."""

from __future__ import annotations

from pydantic import Field, JsonValue, ValidationError

from contract.base import BaseIdentity
from contract.recipe import Recipe
from contract.record import Record, other_version
from contract.results.stage_result import ResultType

CONTRACT_VERSION = 1


class ImageRecord(Record):
    """The image that a stage ran in, by digest, and what built it: others may pack differently."""

    digest: str
    builder: str


class StageRecord(Record):
    """One finished stage: its key, its inputs and outputs by digest, and its result.

    `python` is the version that it ran on: the image's or the environment's. `decided_by` is what
    `key` is the digest of, where a run recorded it: what another run changed is told by it. The
    result stays plain, so that a manifest of another version can be read all the same.
    """

    stage: str
    key: str
    decided_by: dict[str, JsonValue] = Field(default_factory=dict)
    command: list[str]
    engine: str
    image: ImageRecord | None = None
    python: str | None = None
    started: str
    seconds: float
    inputs: dict[str, str]
    outputs: dict[str, str]
    result: dict[str, JsonValue]

    def typed_result(self, kind: type[ResultType]) -> ResultType:
        """The result, as its stage's type.

        Raises:
            UserError: it has other keys than this version's.
        """
        if kind.stage != self.stage:
            raise TypeError(f"{kind.__name__} is not what {self.stage} finds out")
        try:
            return kind.model_validate(self.result)
        except ValidationError as error:
            raise other_version(f"the result of {self.stage}", error, self.remedy) from None


class Check(Record):
    """One check of a served model."""

    name: str
    passed: bool
    found: str


class Verification(Record):
    """The last verification that a server serves this run's model.

    `model` is its name there. `model_digest` is of the served files and settings, and the same on
    every server. `server` is the server's version, `address` where it was, and `image` the id of
    the image that it ran in, where the launcher started its container.
    """

    model: str
    model_digest: str
    server: str
    address: str | None = None
    image: str | None = None
    passed: bool
    checks: list[Check]


class Machine(Record):
    """What a digest may depend on: PyTorch promises nothing across platforms."""

    platform: str
    processor: str
    cores: int | None


class Manifest(Record):
    """Everything that a stranger needs to make this model again and compare it."""

    contract_version: int = CONTRACT_VERSION
    affineur_version: str
    key: str
    recipe: Recipe
    base: BaseIdentity
    data: dict[str, str]
    locks: dict[str, str]
    code: dict[str, str]
    versions: dict[str, str]
    machine: Machine
    created: str
    stages: list[StageRecord]
    verification: Verification | None = None

    @property
    def outputs(self) -> dict[str, str]:
        """The SHA-256 of each file that its stages made, by its path below the run's folder."""
        return {name: digest for record in self.stages for name, digest in record.outputs.items()}

    def result(self, kind: type[ResultType]) -> ResultType:
        """What a stage of this run found out.

        Raises:
            UserError: another version of this project wrote it.
            LookupError: the run has no such stage.
        """
        for record in self.stages:
            if record.stage == kind.stage:
                return record.typed_result(kind)
        raise LookupError(f"this run has no stage {kind.stage}")
