"""How a run's model is to be served: what the Modelfile says, for those who speak HTTP."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from contract.record import read_record


class Serving(BaseModel):
    """The served file and what Ollama is told beside it.

    `gguf` and `adapter` lie below the run's folder; without an adapter, `gguf` is the merged model.
    `template` is in Go's template language; None leaves it to the GGUF's own. `parameters` have
    Ollama's names: stop, num_ctx, num_predict, temperature.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gguf: str
    adapter: str | None = None
    template: str | None
    system: str | None
    parameters: dict[str, int | float | list[str]]

    @classmethod
    def read(cls, path: Path) -> Serving:
        """What the stage `modelfile` left."""
        return read_record(cls, path)
