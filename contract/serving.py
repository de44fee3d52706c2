"""How a run's model is to be served: what the Modelfile says, for clients that use HTTP."""

from __future__ import annotations

from contract.record import Record


class Serving(Record):
    """The served file, and the settings that Ollama gets with it.

    `gguf` and `adapter` are relative to the run's folder; without an adapter, `gguf` is the merged
    model.
    `template` is in Go's template language; None leaves it to the GGUF's own. `parameters` have
    Ollama's names: stop, num_ctx, num_predict, temperature.
    """

    gguf: str
    adapter: str | None = None
    template: str | None
    system: str | None
    parameters: dict[str, int | float | list[str]]
