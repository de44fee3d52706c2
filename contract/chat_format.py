"""How a run's conversations are written and where answers end: one file for all later stages."""

from __future__ import annotations

from contract.record import Record


class ChatFormat(Record):
    """What `prepare` settles about the base's chat template; see `trainer.chat`.

    Attributes:
        template: the Jinja chat template that trains and is served, with nothing in it that moves
            (dates, switches).
        end: what the template writes after an answer, up to the token that ends the turn.
        ends: the tokens that end an answer, as text; `end` ends with the first of them.
        end_ids: their ids, in the same order.
        thinking: whether served answers reason first; None where the base's template knows nothing
            of reasoning.
        needs_template_engine: why Ollama's template language cannot write the data's turns; None
            where it may.
    """

    template: str
    end: str
    ends: list[str]
    end_ids: list[int]
    thinking: bool | None
    needs_template_engine: str | None
