"""What the served model must answer: written by the stage `reference`, read by the launcher."""

from __future__ import annotations

from pydantic import Field

from contract.conversation import Message, Tool
from contract.record import Record


class Question(Record):
    """A conversation, the prompt that the chat template makes of it, and the greedy answer.

    `decided`: the beginning of the answer, up to where the model's two best tokens are too close
    for two programs to agree; None where they never are. `held_out`: the question is from the
    held-out rows; the others test the template. `special`: what some server's form has no way to
    write, in a conversation of the latter kind; None where every one has.
    """

    messages: list[Message]
    tools: list[Tool] = Field(default_factory=list)
    prompt: str
    prompt_tokens: int
    prompt_ids: list[int] = Field(default_factory=list)
    answer: str
    decided: str | None
    held_out: bool
    special: str | None = None


class Agreement(Record):
    """How near one model's predictions are to another's, over tokens that bear loss.

    `mean_kl` is in nats per token; `same_top` is the share of `tokens` with the same most likely
    token.
    """

    mean_kl: float
    same_top: float
    tokens: int


class Rendering(Record):
    """Whether llama.cpp's template engine writes the questions' prompts, letter for letter.

    Of `asked`, those that are `differing` say in what, and `special` of what kind the others are
    that it writes otherwise.
    """

    asked: int
    differing: list[str]
    special: list[str]


class Reference(Record):
    """All of it; the answers have at most `answer_tokens` tokens.

    `agreements`: of each quantized GGUF with the merged model. `merge`: of the merged model with
    the one that was trained, whose base was quantized. `rendering`: of the GGUF's own template;
    None where llama.cpp's tools were not there.
    """

    answer_tokens: int
    questions: list[Question]
    agreements: dict[str, Agreement]
    merge: Agreement
    rendering: Rendering | None


def first_difference(found: str, expected: str, letters: int = 24) -> tuple[int, str, str]:
    """Where two texts part, and how each goes on from there, quoted and in short."""
    shorter = min(len(found), len(expected))
    where = next((at for at in range(shorter) if found[at] != expected[at]), shorter)
    return where, repr(found[where : where + letters]), repr(expected[where : where + letters])
