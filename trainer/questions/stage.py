"""The story of `questions`: read the evaluation sets in any format that training data may have,
find out how each answer is scored, and see that none of it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from contract import paths
from contract.answer_text import answer_text
from contract.conversation import Conversation, Message, Tool
from contract.errors import Problem, Problems, UserError, unknown_name
from contract.evaluation import Item, Leak, Questions, QuestionsRequest
from contract.exact_json import is_missing
from contract.metrics import METRICS, complaint, fitting_metric
from contract.paths import StagePaths
from contract.results.prepare import not_read
from contract.results.questions import QuestionsResult
from contract.row_forms import BadRow, conversation_of
from trainer.entrypoint import Reporter
from trainer.prepare.reading import Row, is_dataset, read_rows
from trainer.prepare.splitting import UnreadColumns
from trainer.prepared import PreparedRow, read_messages
from trainer.questions.leakage import QuestionText, find_leaks

# Columns of an evaluation set that say how it is scored, and not what is asked.
_SCORING = {"metric", "example"}
# What `prepare` adds to the rows that it holds out.
_PREPARED = PreparedRow.__annotations__.keys() - {"messages", "tools"}


def questions(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `questions.json` from the task's file and the folder of skills.

    Raises:
        UserError: rows that cannot be read or scored, or that stand in the training data: all of
            them named.
    """
    request = QuestionsRequest.read(stage_paths.run / paths.QUESTIONS_REQUEST)
    problems = Problems()
    sets = [_task(stage_paths.require("data"), request, problems)]
    if stage_paths.skills is not None:
        sets += [_skill(file, problems) for file in _sets(stage_paths.skills)]
    if problems:
        raise problems.error()
    items = [item for found in sets for item in found.items]
    for found in sets:
        for note in found.notes():
            reporter.note(note)
    leaks = _leaks(items, stage_paths.trained)
    if leaks and not request.drop_leaked:
        raise UserError([_as_problem(leak) for leak in leaks])
    leaked = {leak.where for leak in leaks}
    kept = [item for item in items if item.where not in leaked]
    if not any(item.kind == "task" for item in kept):
        raise UserError.one(
            request.task, "all of its rows are in the training data", "Use other rows: --data FILE."
        )
    if leaks:
        reporter.note(f"{len(leaks)} rows are in the training data and are dropped")
    Questions(items=kept, dropped=leaks).write(stage_paths.output / paths.QUESTIONS)
    reporter.result(QuestionsResult(items=len(kept), dropped=len(leaks)))


@dataclass(frozen=True)
class _Set:
    """A file's questions, and what of its rows is not read."""

    file: str
    items: list[Item]
    unread: dict[str, int]

    def notes(self) -> list[str]:
        """Sentences for people."""
        notes = []
        if self.unread:
            notes.append(f"{self.file}: {not_read(self.unread)}")
        return notes


def _task(file: Path, request: QuestionsRequest, problems: Problems) -> _Set:
    found = _read(
        file,
        name=request.task,
        kind="task",
        columns=request.columns,
        system_prompt=request.system_prompt,
        metric=request.metric,
        problems=problems,
    )
    if not problems and not found.items:
        raise UserError.one(
            request.task,
            "all of its rows end with a tool call, which no metric scores",
            "Use rows that end with a text: --data FILE.",
        )
    return found


def _sets(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.is_file() and is_dataset(path))
    if not found:
        raise UserError.one(
            "--skills",
            "the folder contains no evaluation sets",
            "Omit it to use the shipped ones, or use --skills none.",
        )
    return found


def _skill(file: Path, problems: Problems) -> _Set:
    return _read(
        file,
        name=file.stem,
        kind="skill",
        columns={},
        system_prompt=None,
        metric=None,
        problems=problems,
    )


class _ReadRow(NamedTuple):
    """What is kept of a row: a held-out one has its tokens besides, which take ten times as much.

    `answer` is as a model's is read: a call as JSON, and without the reasoning before it.
    """

    where: str
    messages: list[Message]
    tools: list[Tool]
    answer: str
    metric: str | None
    example: str | None

    @classmethod
    def of(cls, row: Row, conversation: Conversation, columns: Mapping[str, str]) -> _ReadRow:
        """The row of this conversation."""
        named = row.values.get("metric")
        return cls(
            row.where,
            conversation.messages,
            conversation.tools,
            answer_text(conversation.messages[-1]).strip(),
            None if is_missing(named) or named == "" else str(named),
            _example(row, columns),
        )


def _read(
    file: Path,
    *,
    name: str,
    kind: Literal["task", "skill"],
    columns: Mapping[str, str],
    system_prompt: str | None,
    metric: str | None,
    problems: Problems,
) -> _Set:
    read: list[_ReadRow] = []
    unread = UnreadColumns()
    for row in read_rows(file, problems):
        try:
            conversation = conversation_of(_said(row, columns), columns, system_prompt)
        except BadRow as bad:
            remedy = bad.remedy_without_flags
            problems.append(Problem(where=row.where, what=bad.what, remedy=remedy))
            continue
        unread.add(conversation)
        read.append(_ReadRow.of(row, conversation, columns))
    fitting = metric or fitting_metric([row.answer for row in read])
    items = []
    for one in read:
        scored_by = one.metric or fitting
        if scored_by not in METRICS:
            problems.append(unknown_name(scored_by, METRICS, kind="metric", where=one.where))
            continue
        expected = one.answer
        if METRICS[scored_by].expects_pattern:
            expected = one.messages[-1]["content"].strip()
        if said := complaint(scored_by, expected):
            problems.append(Problem(where=one.where, what=said))
            continue
        items.append(
            Item(
                set=name,
                kind=kind,
                where=one.where,
                messages=one.messages[:-1],
                tools=one.tools,
                expected=expected,
                metric=scored_by,
                example=one.example,
            )
        )
    return _Set(file.name, items, unread.counts())


def _example(row: Row, columns: Mapping[str, str]) -> str | None:
    """A right answer that the row brings along; a column of that name may be mapped otherwise."""
    given = None if "example" in columns.values() else row.values.get("example")
    return given if isinstance(given, str) and given.strip() else None


def _said(row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    passed_over = _SCORING - set(columns.values())
    if row.values.keys() >= _PREPARED:
        passed_over |= _PREPARED
    return {name: value for name, value in row.values.items() if name not in passed_over}


def _leaks(items: Sequence[Item], trained: Path | None) -> list[Leak]:
    if trained is None:
        return []
    return find_leaks(
        [QuestionText(item.where, _asked(item.messages)) for item in items],
        TrainedRows(trained / paths.PREPARED_TRAIN),
    )


@dataclass(frozen=True)
class TrainedRows:
    """The questions that were trained on, read anew by each iteration."""

    path: Path

    def __iter__(self) -> Iterator[QuestionText]:
        for where, messages in read_messages(self.path):
            yield QuestionText(where, _asked(messages[:-1]))


def _asked(messages: Sequence[Message]) -> str:
    """What was asked; a system turn is the same everywhere, and no question."""
    return "\n".join(turn["content"] for turn in messages if turn["role"] != "system")


def _as_problem(leak: Leak) -> Problem:
    how = "word for word" if leak.overlap is None else f"{leak.overlap:.0%} of its 13-grams"
    return Problem(
        where=leak.where,
        what=f"is in the training data ({leak.trained_where}, {how})",
        remedy="Remove it, or drop all such rows with --drop-leaked.",
    )
