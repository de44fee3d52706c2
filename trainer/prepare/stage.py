"""Stage `prepare`: read, normalise, split, tokenise, report."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from contract import paths
from contract.atomic_write import atomic_write
from contract.chat_format import ChatFormat
from contract.conversation import Conversation
from contract.errors import Problem, UserError
from contract.paths import StagePaths
from contract.recipe import PrepareSection, Recipe
from contract.results.prepare import PrepareResult, not_read
from contract.row_forms import BadRow, conversation_of
from trainer.chat_template import chat_format
from trainer.entrypoint import Reporter
from trainer.loading import declared_ends, embedded_tokens, load_tokenizer
from trainer.prepare.answers import has_reasoning, needs_template_engine
from trainer.prepare.reading import read_rows
from trainer.prepare.report import TokenizedRow, report_on
from trainer.prepare.splitting import DatasetRow, in_both, split
from trainer.prepare.tokenizing import Tokens, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prepare(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `prepared/` from the dataset.

    Raises:
        UserError: rows that cannot be read, naming all of them; or nothing left to learn.
    """
    recipe = Recipe.read(stage_paths.run / paths.RECIPE).section(PrepareSection)
    problems: list[Problem] = []
    data_path = stage_paths.require("data")
    rows = _read(data_path, recipe, problems)
    if stage_paths.evaluation:
        train, held_out = rows, _read(stage_paths.evaluation, recipe, problems)
    else:
        train, held_out = split(rows, recipe.held_out_fraction)
    if problems:
        raise UserError(problems)

    both = in_both(train, held_out)
    leaked = {where for _, where in both}
    # A row that was trained on says nothing about what was learned.
    held_out = [row for row in held_out if row.where not in leaked]

    base = stage_paths.require("base")
    tokenizer = load_tokenizer(base)
    found = chat_format(
        tokenizer,
        declared_ends(base),
        thinking=recipe.thinking,
        reasoning_in_data=any(has_reasoning(row.conversation) for row in train),
    )
    tokenizer.chat_template = found.template
    tokenizing = _Tokenizing(tokenizer, found, embedded_tokens(base), recipe.system_prompt)
    train_rows, held_out_rows = tokenizing.rows([train, held_out], reporter)
    kept = _within(train_rows, recipe.max_length)
    if not kept:
        raise UserError.one(
            data_path.name,
            f"no row has room for an answer within max_length ({recipe.max_length} tokens)",
            "Raise max_length, or shorten the rows.",
        )
    report = report_on(train_rows, held_out_rows, both=both, max_length=recipe.max_length)
    _write(stage_paths.output / paths.PREPARED_TRAIN, kept)
    _write(stage_paths.output / paths.PREPARED_HELD_OUT, _within(held_out_rows, recipe.max_length))
    report.write(stage_paths.output / paths.PREPARED_REPORT)
    conversations = [row.conversation for row in [*train, *held_out]]
    found = found.model_copy(update={"needs_template_engine": needs_template_engine(conversations)})
    found.write(stage_paths.output / paths.CHAT_FORMAT)
    for line in _notes(report):
        reporter.note(line)
    reporter.result(report)


def _read(path: Path, recipe: PrepareSection, problems: list[Problem]) -> list[DatasetRow]:
    conversations = []
    for row in read_rows(path, problems)[: recipe.max_rows]:
        try:
            conversation = conversation_of(row.values, recipe.columns, recipe.system_prompt)
        except BadRow as bad:
            problems.append(Problem(where=row.where, what=bad.what, remedy=bad.remedy))
        else:
            conversations.append(DatasetRow(row.where, conversation))
    return conversations


@dataclass(frozen=True)
class _Tokenizing:
    """What rows are tokenised with.

    `embedded`: how many tokens have a row in the base's embeddings.
    """

    tokenizer: PreTrainedTokenizerBase
    chat_format: ChatFormat
    embedded: int
    system_prompt: str | None

    def rows(
        self, parts: Sequence[Sequence[DatasetRow]], reporter: Reporter
    ) -> list[list[TokenizedRow]]:
        """The tokenised rows of each part.

        Raises:
            UserError: naming every row that cannot be made right.
        """
        problems: list[Problem] = []
        tokenized: list[list[TokenizedRow]] = []
        total, done = sum(map(len, parts)), 0
        for part in parts:
            rows: list[TokenizedRow] = []
            for row in part:
                try:
                    found = self._tokens(row.conversation)
                except BadRow as bad:
                    problems.append(self._problem(row, bad))
                else:
                    rows += [TokenizedRow(row, tokens, of=len(found)) for tokens in found]
                done += 1
                reporter.progress("tokenising", done=done, total=total, unit="rows")
            tokenized.append(rows)
        if problems:
            # What the recipe causes is said once, and not of every row.
            raise UserError(list(dict.fromkeys(problems)))
        return tokenized

    def _tokens(self, conversation: Conversation) -> list[Tokens]:
        import jinja2

        try:
            found = tokenize(self.tokenizer, self.chat_format, conversation)
        except jinja2.TemplateError as error:
            # Templates refuse what they do not support: a system turn, two user turns in a row.
            raise BadRow(
                f"is refused by the base's chat template: {str(error).rstrip('.')}",
                "Change the row, or use another base.",
            ) from error
        beyond = {id for tokens in found for id in tokens.input_ids if id >= self.embedded}
        if beyond:
            names = ", ".join(map(str, self.tokenizer.convert_ids_to_tokens(sorted(beyond))))
            raise BadRow(
                f"has {names}, a token that the tokenizer has and the base's {self.embedded} "
                "embeddings have not",
                "Remove it from the row, or resize the base's embeddings and train them first.",
            )
        return found

    def _problem(self, row: DatasetRow, bad: BadRow) -> Problem:
        messages = row.conversation.messages
        if self.system_prompt and messages[0]["content"] == self.system_prompt:
            without = replace(
                row.conversation,
                messages=messages[1:],
                unlearned=frozenset(index - 1 for index in row.conversation.unlearned),
            )
            with contextlib.suppress(BadRow):
                self._tokens(without)
                return Problem(
                    where="system_prompt",
                    what=f"cannot be used with this base: a row with it {bad.what}",
                    remedy="Omit it, and put what it says into the questions.",
                )
        return Problem(where=row.where, what=bad.what, remedy=bad.remedy)


def _within(rows: Sequence[TokenizedRow], max_length: int) -> list[TokenizedRow]:
    cut = [replace(row, tokens=row.tokens.cut_to(max_length)) for row in rows]
    return [row for row in cut if row.tokens.learned_tokens]


def _write(path: Path, rows: Iterable[TokenizedRow]) -> None:
    lines = (json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in rows)
    atomic_write(path, "".join(lines))


def _notes(report: PrepareResult) -> list[str]:
    notes = []
    if report.unread:
        notes.append(not_read(report.unread))
    if cut := report.cut:
        lost = sum(row.tokens for row in cut)
        notes.append(
            f"{len(cut)} rows exceed max_length and are truncated, by {lost} tokens in total"
        )
    if no_room := report.no_room:
        notes.append(f"{len(no_room)} rows leave no room for an answer and are skipped")
    if twice := report.duplicates:
        notes.append(f"{len(twice)} rows occur twice, the first at {' and '.join(twice[0])}")
    if both := report.in_both:
        notes.append(
            f"{len(both)} held-out rows also appear in the training data and are not scored, "
            f"the first at {' and '.join(both[0])}"
        )
    if laid_out := report.laid_out:
        notes.append(
            f"{len(laid_out)} conversations become one row for each answer: the base's chat "
            "template does not write earlier turns as it wrote them when they were answered"
        )
    if not report.held_out:
        notes.append("no rows are held out, so nothing will show whether the model learned")
    return notes
