"""Stage `prepare`: read, normalise, split, tokenise, report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from contract import paths
from contract.atomic_write import atomic_write
from contract.errors import Problem, UserError
from contract.paths import StagePaths
from contract.recipe import PrepareSection, Recipe
from contract.results.prepare import PrepareResult, not_read
from contract.row_forms import BadRow, conversation_of
from trainer.chat import check_chat_template
from trainer.entrypoint import Reporter
from trainer.loading import load_tokenizer
from trainer.prepare.reading import read_rows
from trainer.prepare.report import TokenizedRow, report_on
from trainer.prepare.splitting import DatasetRow, in_both, split
from trainer.prepare.tokenizing import tokenize

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

    tokenizer = load_tokenizer(stage_paths.require("base"))
    check_chat_template(tokenizer)
    tokenized = _tokenize(tokenizer, [*train, *held_out], reporter)
    train_rows, held_out_rows = tokenized[: len(train)], tokenized[len(train) :]
    kept = _within(train_rows, recipe.max_length)
    if not kept:
        raise UserError.one(
            data_path.name,
            f"no row has room for an answer within max_length ({recipe.max_length} tokens)",
            "Raise max_length, or shorten the rows.",
        )
    report = report_on(train_rows, held_out_rows, both=both, max_length=recipe.max_length)
    _write(stage_paths.run / paths.PREPARED_TRAIN, kept)
    _write(stage_paths.run / paths.PREPARED_HELD_OUT, _within(held_out_rows, recipe.max_length))
    report.write(stage_paths.run / paths.PREPARED_REPORT)
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


def _tokenize(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[DatasetRow], reporter: Reporter
) -> list[TokenizedRow]:
    import jinja2

    tokenized = []
    for number, row in enumerate(rows, 1):
        try:
            tokenized.append(TokenizedRow(row, tokenize(tokenizer, row.conversation.messages)))
        except jinja2.TemplateError as error:
            # Templates refuse what they do not support: a system turn, two user turns in a row.
            raise UserError.one(
                row.where, f"the base's chat template rejects it: {error}"
            ) from error
        reporter.progress("tokenising", done=number, total=len(rows), unit="rows")
    return tokenized


def _within(rows: Sequence[TokenizedRow], max_length: int) -> list[TokenizedRow]:
    cut = [TokenizedRow(row.row, row.tokens.cut_to(max_length)) for row in rows]
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
    if not report.held_out:
        notes.append("no rows are held out, so nothing will show whether the model learned")
    return notes
