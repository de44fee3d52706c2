"""One conversation's rows, as `prepare` makes those of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contract.chat_format import ChatFormat
from contract.conversation import Conversation
from trainer.prepare.answers import answer_texts
from trainer.prepare.tokenizing import BatchTokenizer, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenize(
    tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, conversation: Conversation
) -> list[Tokens]:
    """The rows of one conversation."""
    texts = answer_texts(tokenizer, chat_format, conversation)
    return BatchTokenizer(tokenizer, chat_format, [texts]).rows(texts)
