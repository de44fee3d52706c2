"""What is written to a JSON file and read again: by this version, or by another one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.atomic_write import atomic_write
from contract.errors import UserError


class Record(BaseModel):
    """The base of all that is written and read: strict and frozen.

    `remedy` is what to do about a file that another version wrote.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        # `model_...` is the field's word here, not pydantic's.
        protected_namespaces=(),
        # A loss may overflow; as null, it could not be read again.
        ser_json_inf_nan="constants",
    )

    remedy: ClassVar[str] = "Run ./invoke train again: what is still valid is kept."

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in a file.

        Raises:
            UserError: it has other keys than this version's.
            FileNotFoundError: it does not exist.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise other_version(str(path), error, cls.remedy) from None

    def write(self, path: Path) -> None:
        """Write the record to a file, atomically."""
        atomic_write(path, self.model_dump_json(indent=1) + "\n")


def other_version(where: str, error: ValidationError, remedy: str) -> UserError:
    """The sentence for a record whose keys are not this version's."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    found = f"{key}: {first['msg'].lower()}" if key else first["msg"]
    return UserError.one(where, f"was written by another version of Affineur ({found})", remedy)
