"""The story of `questions`: read the evaluation sets in any format that training data may have,
find out how each answer is scored, and see that none of it was trained on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from contract import paths
from contract.errors import Problem, UserError
from contract.evaluation import (
    METRICS,
    Item,
    Leak,
    Metric,
    Questions,
    QuestionsRequest,
)
from contract.paths import StagePaths
from contract.results import QuestionsResult
from trainer.chat import Message
from trainer.entrypoint import Reporter
from trainer.prepare.messages import BadRow, conversation_of
from trainer.prepare.reading import SUFFIXES, Row, read_rows
from trainer.prepared import read_prepared
from trainer.questions.leakage import QuestionText, find_leaks

_NUMBER = re.compile(r"[-+]?\d[\d\s.,]*")
_SHORT_WORDS = 6


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
        for file in sorted(
            path for path in stage_paths.skills.iterdir() if path.suffix in SUFFIXES
        ):
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
            request.task, "every row of it stands in the training data", "Give other rows: --data."
        )
    if leaks:
        reporter.note(f"{len(leaks)} rows stand in the training data and are left out")
    found = Questions(items=kept, dropped=leaks)
    found.write(stage_paths.run / paths.QUESTIONS)
    reporter.result(QuestionsResult(items=len(kept), dropped=len(leaks)))


def _task(file: Path, request: QuestionsRequest, problems: list[Problem]) -> list[Item]:
    def messages_of(row: Row) -> list[Message]:
        return conversation_of(row.values, request.columns, request.system_prompt)

    return _read(file, request.task, "task", messages_of, request.metric, problems)


def _skill(file: Path, problems: list[Problem]) -> list[Item]:
    def messages_of(row: Row) -> list[Message]:
        return conversation_of(row.values, {}, None)

    return _read(file, file.stem, "skill", messages_of, None, problems)


def _read(
    file: Path,
    name: str,
    kind: Literal["task", "skill"],
    messages_of: Callable[[Row], list[Message]],
    metric: Metric | None,
    problems: list[Problem],
) -> list[Item]:
    read: list[tuple[Row, list[Message]]] = []
    for row in read_rows(file, problems):
        try:
            read.append((row, messages_of(row)))
        except BadRow as bad:
            problems.append(Problem(where=row.where, what=bad.what, remedy=bad.remedy))
    fitting = metric or fitting_metric([messages[-1]["content"] for _, messages in read])
    items = []
    for row, messages in read:
        scored_by = row.values.get("metric") or fitting
        expected = messages[-1]["content"].strip()
        if complaint := _complaint(scored_by, expected):
            problems.append(Problem(where=row.where, what=complaint))
            continue
        items.append(
            Item(
                set=name,
                kind=kind,
                where=row.where,
                messages=messages[:-1],
                expected=expected,
                metric=scored_by,
            )
        )
    return items


def fitting_metric(expected: Sequence[str]) -> Metric:
    """The metric that fits all of a set's expected answers.

    JSON objects or arrays are compared as such, results (a number, or one after `####`) as
    numbers, a few words after normalisation, and prose by its letters (chrF).
    """
    if all(_is_structure(text) for text in expected):
        return "json_f1"
    if all("####" in text or _NUMBER.fullmatch(text.strip()) for text in expected):
        return "number"
    if all(len(text.split()) <= _SHORT_WORDS for text in expected):
        return "normalized"
    return "chrf"


def _is_structure(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except json.JSONDecodeError:
        return False


def _complaint(metric: str, expected: str) -> str:
    """Why the expected answer cannot be compared with by this metric, or an empty string."""
    if metric not in METRICS:
        return f"names the metric {metric!r}; known: {', '.join(METRICS)}"
    if metric == "regex":
        try:
            re.compile(expected)
        except re.error as error:
            return f"its output is no regular expression: {error}"
    if metric == "json_f1":
        try:
            json.loads(expected)
        except json.JSONDecodeError as error:
            return f"is scored as JSON, and its output is none: {error.msg}"
    if metric == "number" and not re.search(r"\d", expected):
        return "is scored as a number, and its output holds none"
    return ""


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
        what=f"stands in the training data ({leak.trained_where}, {how})",
        remedy="Leave it out by hand, or all such rows by --drop-leaked.",
    )
