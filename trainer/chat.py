"""How a conversation is written for the model: by the base's own chat template, always."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]

# Some templates (Llama 3.x) write today's date into every prompt, so that the same data would
# become other tokens tomorrow. They take this variable first; the value is their own fallback.
_DATE = "26 Jul 2024"


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool
) -> str:
    """The conversation as text, with the template's special tokens written out."""
    text = tokenizer.apply_chat_template(
        list(messages),
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        date_string=_DATE,
    )
    return str(text)
