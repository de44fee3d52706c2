"""Turn a conversation into rows of tokens, and mark which tokens are learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from contract.chat_format import ChatFormat
from contract.row_forms import BadRow
from trainer.prepare.answers import AnswerText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """A row as the model sees it.

    `input_ids` and `completion_mask` have the same length; the mask is 1 on tokens that are
    learned. `prompt_ids` is the conversation up to where its last answer begins, as a server
    would receive it. `answer` is the index of that answer's turn in the conversation.
    """

    input_ids: list[int]
    completion_mask: list[int]
    prompt_ids: list[int]
    answer: int = -1

    def cut_to(self, max_length: int) -> Tokens:
        """The first `max_length` tokens: what is lost is the end of the last answer."""
        if len(self.input_ids) <= max_length:
            return self
        return Tokens(
            self.input_ids[:max_length],
            self.completion_mask[:max_length],
            self.prompt_ids,
            self.answer,
        )

    @property
    def learned_tokens(self) -> int:
        """How many tokens count for the loss."""
        return sum(self.completion_mask)


class BatchTokenizer:
    """Tokenizes the texts of several conversations at once, which takes half the time."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat_format: ChatFormat,
        batch: Iterable[Sequence[AnswerText]],
    ) -> None:
        """Tokenize every answer's prompt, and what follows it, of these conversations."""
        self._tokenizer = tokenizer
        self._chat_format = chat_format
        texts = list(
            dict.fromkeys(
                text
                for answers in batch
                for answer in answers
                for text in (answer.prompt, answer.prompt + answer.completion)
            )
        )
        self._ids_of = dict(zip(texts, _ids(tokenizer, texts), strict=True))

    def rows(self, texts: Sequence[AnswerText]) -> list[Tokens]:
        """The rows of one of the conversations: one, or one for each learned answer.

        All answers stand in one row where each one's prompt is the beginning of that row, token for
        token. A template that writes the past in another way than it wrote the present (most drop
        earlier reasoning) would make the model learn after prompts that no server sends; there,
        each answer gets a row of its own, behind the prompt that it will be served with.

        Args:
            texts: the conversation's own, as the batch has them.

        Raises:
            BadRow: an answer's first letters cannot be told from its prompt.
        """
        if all(
            later.prompt.startswith(earlier.prompt + earlier.completion)
            for earlier, later in pairwise(texts)
        ):
            together = self._together(texts)
            if together is not None:
                return [together]
        return [self._apart(text) for text in texts]

    def _together(self, texts: Sequence[AnswerText]) -> Tokens | None:
        """One row with all answers; None where tokens reach across the edge of an answer."""
        last = texts[-1]
        ids = self._ids_of[last.prompt + last.completion]
        mask = [0] * len(ids)
        prompt_ids: list[int] = []
        for text in texts:
            prompt_ids = self._ids_of[text.prompt]
            answered = ids if text is last else self._ids_of[text.prompt + text.completion]
            start, end = len(prompt_ids), len(answered)
            if ids[:start] != prompt_ids or ids[:end] != answered:
                return None
            mask[start:end] = [1] * (end - start)
        return Tokens(ids, mask, prompt_ids, last.index)

    def _apart(self, text: AnswerText) -> Tokens:
        """One answer's row: the tokens of its prompt, then those of the completion."""
        together = self._together([text])
        if together is not None:
            return together
        prompt_ids = self._ids_of[text.prompt]
        # Some tokenizers put a space before the beginning of a text; an end token keeps it away.
        ends, end_ids = self._chat_format.ends, self._chat_format.end_ids
        ((first, *rest),) = _ids(self._tokenizer, [ends[0] + text.completion])
        ids = [*prompt_ids, *rest]
        whole = self._ids_of[text.prompt + text.completion]
        if first != end_ids[0] or self._tokenizer.decode(ids) != self._tokenizer.decode(whole):
            raise BadRow(
                "has an answer whose first letters the base's tokenizer cannot tell from the "
                "prompt",
                "Begin the answer with another character than white space.",
            )
        return Tokens(ids, [0] * len(prompt_ids) + [1] * len(rest), prompt_ids, text.index)


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    # The template writes its own special tokens: letting the tokenizer add them would double BOS.
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)[
        "input_ids"
    ]
    return ids
