"""The story of `questions`: read the evaluation sets in any format that training data may have,
find out how each answer is scored, and see that none of it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from contract import paths
from contract.answer_text import answer_text
from contract.conversation import Conversation, Message
from contract.errors import Problem, UserError, unknown_name
from contract.evaluation import Item, Leak, Questions, QuestionsRequest
from contract.metrics import METRICS, complaint, fitting_metric
from contract.paths import StagePaths
from contract.results.questions import QuestionsResult
from contract.row_forms import BadRow, conversation_of
from trainer.entrypoint import Reporter
from trainer.prepare.reading import Row, is_dataset, read_rows
from trainer.prepared import read_prepared
from trainer.questions.leakage import QuestionText, find_leaks


def questions(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `questions.json` from the task's file and the folder of skills.

    Raises:
        UserError: rows that cannot be read or scored, or that stand in the training data: all of
            them named.
    """
    request = QuestionsRequest.read(stage_paths.run / paths.QUESTIONS_REQUEST)
    problems: list[Problem] = []
    items = _task(stage_paths.require("data"), request, problems)
    if stage_paths.skills is not None:
        for file in _sets(stage_paths.skills):
            items += _skill(file, problems)
    if problems:
        raise UserError(problems)
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
    found = Questions(items=kept, dropped=leaks)
    found.write(stage_paths.run / paths.QUESTIONS)
    reporter.result(QuestionsResult(items=len(kept), dropped=len(leaks)))


def _task(file: Path, request: QuestionsRequest, problems: list[Problem]) -> list[Item]:
    def conversation(row: Row) -> Conversation:
        return conversation_of(row.values, request.columns, request.system_prompt)

    return _read(
        file,
        name=request.task,
        kind="task",
        conversation=conversation,
        metric=request.metric,
        problems=problems,
    )


def _sets(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.is_file() and is_dataset(path))
    if not found:
        raise UserError.one(
            "--skills",
            "the folder contains no evaluation sets",
            "Omit it to use the shipped ones, or use --skills none.",
        )
    return found


def _skill(file: Path, problems: list[Problem]) -> list[Item]:
    def conversation(row: Row) -> Conversation:
        return conversation_of(row.values, {}, None)

    return _read(
        file,
        name=file.stem,
        kind="skill",
        conversation=conversation,
        metric=None,
        problems=problems,
    )


def _read(
    file: Path,
    *,
    name: str,
    kind: Literal["task", "skill"],
    conversation: Callable[[Row], Conversation],
    metric: str | None,
    problems: list[Problem],
) -> list[Item]:
    read: list[tuple[Row, Conversation, str]] = []
    for row in read_rows(file, problems):
        try:
            found = conversation(row)
        except BadRow as bad:
            problems.append(Problem(where=row.where, what=bad.what, remedy=bad.remedy))
            continue
        # As an answer is read: a call as JSON, and without the reasoning before it.
        read.append((row, found, answer_text(found.messages[-1]).strip()))
    fitting = metric or fitting_metric([expected for _, _, expected in read])
    items = []
    for row, found, expected in read:
        scored_by = str(row.values.get("metric") or fitting)
        if scored_by not in METRICS:
            problems.append(unknown_name(scored_by, METRICS, kind="metric", where=row.where))
            continue
        if METRICS[scored_by].expects_pattern:
            expected = found.messages[-1]["content"].strip()
        if said := complaint(scored_by, expected):
            problems.append(Problem(where=row.where, what=said))
            continue
        items.append(
            Item(
                set=name,
                kind=kind,
                where=row.where,
                messages=found.messages[:-1],
                tools=found.tools,
                expected=expected,
                metric=scored_by,
            )
        )
    return items


def _leaks(items: Sequence[Item], trained: Path | None) -> list[Leak]:
    if trained is None:
        return []
    rows = read_prepared(trained / paths.PREPARED_TRAIN)
    return find_leaks(
        [QuestionText(item.where, _asked(item.messages)) for item in items],
        [QuestionText(row["where"], _asked(row["messages"][:-1])) for row in rows],
    )


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
