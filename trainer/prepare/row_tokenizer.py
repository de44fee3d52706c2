"""Tokenize rows in batches, and say of each that cannot be why, as a person can fix it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from contract.chat_format import ChatFormat
from contract.conversation import Conversation
from contract.errors import Problem, Problems
from contract.row_forms import BadRow
from trainer.batches import batches
from trainer.prepare.answers import AnswerText, answer_texts
from trainer.prepare.report import TokenizedRow
from trainer.prepare.splitting import DatasetRow
from trainer.prepare.tokenizing import BatchTokenizer, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RowTokenizer:
    """What rows are tokenized with.

    `tokenizer` has the format's template. `embedded`: how many tokens have a row in the base's
    embeddings. `system_prompt` is the recipe's.
    """

    tokenizer: PreTrainedTokenizerBase
    chat_format: ChatFormat
    embedded: int
    system_prompt: str | None

    def rows(
        self, rows: Iterable[DatasetRow], problems: Problems
    ) -> Iterator[tuple[DatasetRow, list[TokenizedRow]]]:
        """Each row with its rows of tokens; none, and a problem, where it cannot be made right."""
        for batch in batches(rows, _characters):
            texts = [self._texts(row.conversation) for row in batch]
            tokenizer = BatchTokenizer(
                self.tokenizer,
                self.chat_format,
                (found for found in texts if not isinstance(found, BadRow)),
            )
            for row, found in zip(batch, texts, strict=True):
                try:
                    tokens = self._tokens(tokenizer, found)
                except BadRow as bad:
                    problems.append(self._problem(row, bad))
                    tokens = []
                yield row, [TokenizedRow(row, one, of=len(tokens)) for one in tokens]

    def _texts(self, conversation: Conversation) -> list[AnswerText] | BadRow:
        import jinja2

        try:
            return answer_texts(self.tokenizer, self.chat_format, conversation)
        except BadRow as bad:
            return bad
        except jinja2.TemplateError as error:
            # Templates refuse what they do not support: a system turn, two user turns in a row.
            return BadRow(
                f"is refused by the base's chat template: {str(error).rstrip('.')}",
                "Change the row, or use another base.",
            )

    def _tokens(self, tokenizer: BatchTokenizer, texts: list[AnswerText] | BadRow) -> list[Tokens]:
        if isinstance(texts, BadRow):
            raise texts
        found = tokenizer.rows(texts)
        if all(max(tokens.input_ids, default=0) < self.embedded for tokens in found):
            return found
        beyond = {id for tokens in found for id in tokens.input_ids if id >= self.embedded}
        names = ", ".join(map(str, self.tokenizer.convert_ids_to_tokens(sorted(beyond))))
        raise BadRow(
            f"has {names}, a token that the tokenizer has and the base's {self.embedded} "
            "embeddings have not",
            "Remove it from the row, or resize the base's embeddings and train them first.",
        )

    def _problem(self, row: DatasetRow, bad: BadRow) -> Problem:
        first, *others = row.conversation.messages
        if first["role"] == "system" and first["content"] == self.system_prompt:
            without = replace(
                row.conversation,
                messages=others,
                unlearned=frozenset(index - 1 for index in row.conversation.unlearned),
            )
            problems = Problems()
            list(self.rows([replace(row, conversation=without)], problems))
            if not problems:
                return Problem(
                    where="system_prompt",
                    what=f"cannot be used with this base: a row with it {bad.what}",
                    remedy="Omit it, and put what it says into the questions.",
                )
        return Problem(where=row.where, what=bad.what, remedy=bad.remedy)


def _characters(row: DatasetRow) -> int:
    return sum(len(message["content"]) for message in row.conversation.messages)
