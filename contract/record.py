"""Reading what an earlier stage or run wrote down: by this version, or by another one."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from contract.errors import UserError

Kind = TypeVar("Kind", bound=BaseModel)


def read_record(kind: type[Kind], path: Path) -> Kind:
    """The record in a file.

    Raises:
        UserError: it has other keys than this version's.
        FileNotFoundError: it is not there.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError.one(
            str(path),
            f"was written by another version of Affineur ({key}: {first['msg'].lower()})",
            "Run ./invoke train again: what still holds is kept.",
        ) from None
