"""How a conversation is written for the model: by its chat template, always."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from contract.conversation import Message, Tool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] = (),
    add_generation_prompt: bool,
) -> str:
    """The conversation as text, with the template's special tokens written out.

    Raises:
        jinja2.TemplateError: the template refuses it, or fails on it.
    """
    import jinja2

    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        # A template is a program of somebody else's: it fails on what it was not written for.
        raise jinja2.TemplateRuntimeError(f"{type(error).__name__}: {error}") from error
    return str(text)
