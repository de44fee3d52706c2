"""What the served model must answer: written by the stage `reference`, read by the launcher."""

from __future__ import annotations

from pydantic import Field

from contract.conversation import Message, Tool
from contract.record import Record


class Question(Record):
    """A conversation, the prompt that the chat template makes of it, and the greedy answer.

    `decided`: the beginning of the answer, up to where the model's two best tokens are too close
    for two programs to agree; None where they never are. `held_out`: the question is from the
    held-out rows; the others test the template.
    """

    messages: list[Message]
    tools: list[Tool] = Field(default_factory=list)
    prompt: str
    prompt_tokens: int
    prompt_ids: list[int] = Field(default_factory=list)
    answer: str
    decided: str | None
    held_out: bool


class Agreement(Record):
    """How near one model's predictions are to another's, over tokens that bear loss.

    `mean_kl` is in nats per token; `same_top` is the share of `tokens` with the same most likely
    token.
    """

    mean_kl: float
    same_top: float
    tokens: int


class Reference(Record):
    """All of it; the answers have at most `answer_tokens` tokens.

    `agreements`: of each quantized GGUF with the merged model. `merge`: of the merged model with
    the one that was trained, whose base was quantized.
    """

    answer_tokens: int
    questions: list[Question]
    agreements: dict[str, Agreement]
    merge: Agreement
