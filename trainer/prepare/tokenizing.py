"""Render a conversation with the base's chat template and mark which tokens are learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from contract.conversation import Message
from trainer.chat import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """One conversation as the model sees it.

    `input_ids` and `completion_mask` have the same length; the mask is 1 on tokens that are
    learned. `prompt_ids` is the conversation up to where its last answer begins, as a server
    would receive it.
    """

    input_ids: list[int]
    completion_mask: list[int]
    prompt_ids: list[int]

    def cut_to(self, max_length: int) -> Tokens:
        """The first `max_length` tokens: what is lost is the end of the last answer."""
        return Tokens(
            self.input_ids[:max_length], self.completion_mask[:max_length], self.prompt_ids
        )

    @property
    def learned_tokens(self) -> int:
        """How many tokens count for the loss."""
        return sum(self.completion_mask)


def tokenize(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> Tokens:
    """Tokenise a conversation whole; every assistant turn is learned, nothing else.

    An earlier assistant turn is learned only where the template renders the conversation up to
    it as a prefix of the whole. Templates that rewrite earlier turns (to drop their reasoning,
    say) do not, and there only the last answer is learned, as it will be served.
    """
    whole = _ids(tokenizer, messages, add_generation_prompt=False)
    mask = [0] * len(whole)
    prompt_ids: list[int] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        is_last = index == len(messages) - 1
        prompt_ids = _ids(tokenizer, messages[:index], add_generation_prompt=True)
        start = _common_prefix(whole, prompt_ids)
        so_far = whole
        if not is_last:
            so_far = _ids(tokenizer, messages[: index + 1], add_generation_prompt=False)
        end = len(so_far)
        rewritten = whole[:end] != so_far
        if is_last or not (rewritten or start < len(prompt_ids)):
            mask[start:end] = [1] * (end - start)
    return Tokens(whole, mask, prompt_ids)


def _ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, add_generation_prompt: bool
) -> list[int]:
    # The template writes its own special tokens: letting the tokenizer add them would double BOS.
    text = render(tokenizer, messages, add_generation_prompt=add_generation_prompt)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _common_prefix(left: list[int], right: list[int]) -> int:
    length = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        length += 1
    return length
