"""How a conversation is written for the model: by the base's own chat template, always."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from contract.conversation import Message
from contract.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Some templates (Llama 3.x) write today's date into every prompt, so that the same data would
# become other tokens tomorrow. They take this variable first; the value is their own fallback.
_DATE = "26 Jul 2024"


def check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """See that the base says how its turns are written.

    Raises:
        UserError: it has no chat template.
    """
    if not tokenizer.chat_template:
        raise UserError.one(
            "model_to_fine_tune",
            "this base has no chat template",
            "Use its instruction-tuned version (often named -Instruct, -Chat or -it).",
        )


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, add_generation_prompt: bool
) -> str:
    """The conversation as text, with the template's special tokens written out."""
    text = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        date_string=_DATE,
    )
    return str(text)
