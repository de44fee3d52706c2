"""What the served model must say: written by the stage `reference`, read by the launcher."""

from __future__ import annotations

from contract.record import Record


class Question(Record):
    """A conversation, the prompt that the chat template makes of it, and the greedy answer.

    `decided`: the answer's beginning up to where the model's two best tokens are too close for any
    two programs to agree; None where that is nowhere. `held_out`: it is from the held-out rows; the
    others try the template.
    """

    messages: list[dict[str, str]]
    prompt: str
    prompt_tokens: int
    answer: str
    decided: str | None
    held_out: bool


class Agreement(Record):
    """A rounded GGUF beside the unrounded one.

    `mean_kl` in nats per token; `same_top` the share of `tokens` with the same most likely token.
    """

    mean_kl: float
    same_top: float
    tokens: int


class Reference(Record):
    """All of it; `answer_tokens` is the bound under which the answers were made."""

    answer_tokens: int
    questions: list[Question]
    agreements: dict[str, Agreement]
