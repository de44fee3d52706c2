"""How a run's model is to be served: what the Modelfile says, for those who speak HTTP."""

from __future__ import annotations

from contract.record import Record


class Serving(Record):
    """The served file and what Ollama is told beside it.

    `gguf` and `adapter` lie below the run's folder; without an adapter, `gguf` is the merged model.
    `template` is in Go's template language; None leaves it to the GGUF's own. `parameters` have
    Ollama's names: stop, num_ctx, num_predict, temperature.
    """

    gguf: str
    adapter: str | None = None
    template: str | None
    system: str | None
    parameters: dict[str, int | float | list[str]]
