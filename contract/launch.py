"""What a launcher says to a stage that it started, on the stage's standard input.

One line, and then nothing: the end of the input means that the launcher is gone. A secret that
comes this way stands in no environment, no command and no description of a container.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

# Set for a stage whose standard input is its launcher's. One that is started by hand has none.
LAUNCHED = "AFFINEUR_LAUNCHED"


class Launch(BaseModel):
    """The one line."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    secrets: dict[str, str] = Field(default_factory=dict, repr=False)

    @classmethod
    def line(cls, secrets: Mapping[str, str]) -> bytes:
        """The line with these secrets, its end included."""
        return cls(secrets=dict(secrets)).model_dump_json().encode() + b"\n"
