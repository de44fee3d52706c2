"""Stage `prepare`: read, normalise, split, tokenise, report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import compress, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from contract import paths
from contract.atomic_write import atomic_writer
from contract.data_rows import DataRows
from contract.errors import Problem, Problems, UserError
from contract.paths import StagePaths
from contract.recipe import PrepareSection, Recipe
from contract.results.prepare import PrepareResult, not_read
from contract.row_forms import BadRow, conversation_of
from trainer.chat_template import chat_format
from trainer.entrypoint import Reporter
from trainer.loading import declared_ends, embedded_tokens, load_tokenizer
from trainer.prepare.answers import has_reasoning, needs_template_engine
from trainer.prepare.reading import read_rows
from trainer.prepare.report import DatasetReport, places
from trainer.prepare.row_tokenizer import RowTokenizer
from trainer.prepare.splitting import DatasetRow, is_held_out
from trainer.prepare.spool import SpooledRows

_ENCODER = json.JSONEncoder(ensure_ascii=False)


def prepare(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `prepared/` from the dataset, without ever holding it in memory.

    Every row is read before the first is tokenized: whether one of them reasons decides how all are
    written. In between, rows lie in two files on disk, one for each side of the split.

    Raises:
        UserError: rows that cannot be read, naming all of them; or nothing left to learn.
    """
    recipe = Recipe.read(stage_paths.run / paths.RECIPE).section(PrepareSection)
    folder = stage_paths.output / paths.PREPARED
    folder.mkdir(parents=True, exist_ok=True)
    with SpooledRows(folder) as train, SpooledRows(folder) as held_out:
        reasoning = _read_all(stage_paths, recipe, train, held_out)
        both = held_out.digests.asked_in(train.digests)
        # A row that was trained on says nothing about what was learned.
        leaked: np.ndarray = np.zeros(len(held_out), dtype=bool)
        leaked[both[:, 1]] = True

        base = stage_paths.require("base")
        tokenizer = load_tokenizer(base)
        found = chat_format(
            tokenizer, declared_ends(base), thinking=recipe.thinking, reasoning_in_data=reasoning
        )
        tokenizer.chat_template = found.template
        rows = RowTokenizer(tokenizer, found, embedded_tokens(base), recipe.system_prompt)
        writer = _Writer(rows, recipe.max_length, len(train) + len(held_out) - len(both), reporter)
        with (
            atomic_writer(stage_paths.output / paths.PREPARED_TRAIN) as train_file,
            atomic_writer(stage_paths.output / paths.PREPARED_HELD_OUT) as held_out_file,
        ):
            kept = writer.write(train, train_file)
            trained = writer.report.rows
            writer.write(compress(held_out, ~leaked), held_out_file)
            if writer.problems:
                raise writer.problems.error()
            if not kept:
                raise UserError.one(
                    stage_paths.require("data").name,
                    f"no row has room for an answer within max_length ({recipe.max_length} tokens)",
                    "Raise max_length, or shorten the rows.",
                )
        report = _report(writer.report, trained, train, held_out, both=both, leaked=leaked)
    report = report.model_copy(update={"files": _files(stage_paths)})
    report.write(stage_paths.output / paths.PREPARED_REPORT)
    found = found.model_copy(update={"needs_template_engine": writer.needs_template_engine})
    found.write(stage_paths.output / paths.CHAT_FORMAT)
    for line in _notes(report):
        reporter.note(line)
    reporter.result(report)


def _read_all(
    stage_paths: StagePaths, recipe: PrepareSection, train: SpooledRows, held_out: SpooledRows
) -> bool:
    """Read every row onto its side; whether a row to train on has reasoning.

    Raises:
        UserError: naming every row that cannot be read.
    """
    problems = Problems()
    reasoning = False
    evaluation = stage_paths.evaluation
    for row in _read(stage_paths.require("data"), recipe, problems):
        question = row.question_digest
        if evaluation is None and is_held_out(question, recipe.held_out_fraction):
            held_out.append(row, question)
        else:
            train.append(row, question)
            reasoning = reasoning or has_reasoning(row.conversation)
    if evaluation is not None:
        for row in _read(evaluation, recipe, problems):
            held_out.append(row, row.question_digest)
    if problems:
        raise problems.error()
    return reasoning


def _files(stage_paths: StagePaths) -> dict[str, DataRows]:
    found = {"data": stage_paths.require("data")}
    if stage_paths.evaluation is not None:
        found["evaluation"] = stage_paths.evaluation
    return {name: DataRows.of(path) for name, path in found.items()}


def _read(path: Path, recipe: PrepareSection, problems: Problems) -> Iterator[DatasetRow]:
    for row in islice(read_rows(path, problems), recipe.max_rows):
        try:
            conversation = conversation_of(row.values, recipe.columns, recipe.system_prompt)
        except BadRow as bad:
            problems.append(Problem(where=row.where, what=bad.what, remedy=bad.remedy))
        else:
            yield DatasetRow(row.where, conversation)


class _Writer:
    """Writes rows as they are tokenized, and sees what there is to report of them.

    Attributes:
        report: of the rows so far.
        problems: of those that cannot be made right.
        needs_template_engine: see `ChatFormat`; of the first row that has a reason.
    """

    def __init__(
        self, tokenizer: RowTokenizer, max_length: int, total: int, reporter: Reporter
    ) -> None:
        """No row is written; `total` is how many will be."""
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._done, self._total = 0, total
        self._reporter = reporter
        self.report = DatasetReport(max_length)
        self.problems = Problems()
        self.needs_template_engine: str | None = None

    def write(self, rows: Iterable[DatasetRow], file: BinaryIO) -> int:
        """Write what is left of each row within `max_length`; how many lines that is."""
        written = 0
        for row, tokenized in self._tokenizer.rows(rows, self.problems):
            if tokenized:
                self.report.add(tokenized)
                reason = self.needs_template_engine or needs_template_engine([row.conversation])
                self.needs_template_engine = reason
            for one in tokenized:
                cut = replace(one, tokens=one.tokens.cut_to(self._max_length))
                if cut.tokens.learned_tokens:
                    file.write((_ENCODER.encode(cut.as_json()) + "\n").encode())
                    written += 1
            self._done += 1
            self._reporter.progress("tokenising", done=self._done, total=self._total, unit="rows")
        return written


def _report(
    found: DatasetReport,
    trained: int,
    train: SpooledRows,
    held_out: SpooledRows,
    *,
    both: np.ndarray,
    leaked: np.ndarray,
) -> PrepareResult:
    """The report, with the places of rows that occur more than once."""
    digests = train.digests + held_out.digests.without(leaked)
    scored = np.flatnonzero(~leaked)

    def where(row: int) -> str:
        if row < len(train):
            return train.where(row)
        return held_out.where(int(scored[row - len(train)]))

    return found.result(
        train=trained,
        duplicates=places(digests.duplicates(), where, where),
        conflicts=places(digests.conflicts(), where, where),
        in_both=places(both, train.where, held_out.where),
    )


def _notes(report: PrepareResult) -> list[str]:
    notes = []
    if report.unread:
        notes.append(not_read(report.unread))
    if cut := report.count("cut"):
        notes.append(
            f"{cut} rows exceed max_length and are truncated, by {report.lost_tokens} tokens in "
            "total"
        )
    if no_room := report.count("no_room"):
        notes.append(f"{no_room} rows leave no room for an answer and are skipped")
    if twice := report.count("duplicates"):
        first = " and ".join(report.duplicates[0])
        notes.append(f"{twice} rows occur twice, the first at {first}")
    if both := report.count("in_both"):
        first = " and ".join(report.in_both[0])
        notes.append(
            f"{both} held-out rows also appear in the training data and are not scored, "
            f"the first at {first}"
        )
    if laid_out := report.count("laid_out"):
        notes.append(
            f"{laid_out} conversations become one row for each answer: the base's chat "
            "template does not write earlier turns as it wrote them when they were answered"
        )
    if not report.held_out:
        notes.append("no rows are held out, so nothing will show whether the model learned")
    return notes
