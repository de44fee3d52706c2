"""What the base's tokenizer says: its chat template, and tokens that the model does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contract.chat_format import ChatFormat
from contract.errors import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


def tokens_beyond(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> dict[str, int]:
    """The tokens, with their ids, for which the embeddings have no row; a row with one of them
    ends a training by `index out of range in self`.
    """
    rows = config.get_text_config().vocab_size
    beyond = {name: number for name, number in tokenizer.get_vocab().items() if number >= rows}
    return dict(sorted(beyond.items(), key=lambda item: item[1]))


def check_special_tokens(
    tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, config: PreTrainedConfig
) -> list[Problem]:
    """See that the tokens that stand in every row or batch have embeddings."""
    beyond = tokens_beyond(tokenizer, config)
    needed = {"end of a turn": chat_format.ends[0], "pad_token": tokenizer.pad_token}
    return [
        Problem(
            where="model_to_fine_tune",
            what=f"its {role} {token} has the id {beyond[token]}, and the embeddings end at "
            f"{config.get_text_config().vocab_size - 1}",
            remedy="Resize the base's embeddings, or choose a token that they have.",
        )
        for role, token in needed.items()
        if isinstance(token, str) and token in beyond
    ]


def tokenizer_notes(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> list[str]:
    """What rows must not contain."""
    beyond = tokens_beyond(tokenizer, config)
    if not beyond:
        return []
    names = ", ".join(list(beyond)[:3]) + (", ..." if len(beyond) > 3 else "")
    return [
        f"{len(beyond)} of the tokenizer's tokens have no row in the embeddings ({names}): rows "
        "with them are refused"
    ]
