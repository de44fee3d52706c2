"""Which of a dataset's columns is probably what: for the remedy of a row that has no known form."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping, Sequence

from contract.row_keys import Keys
from contract.row_turns import looks_like_turns

_QUESTIONS = ("instruction", "prompt", "question", "query", "problem", "input", "user", "human")
_ANSWERS = ("output", "completion", "response", "answer", "solution", "target", "reply", "reponse")
_DOCUMENTS = ("input", "context", "document", "passage", "article")


def guess_columns(row: Keys, columns: Mapping[str, str]) -> dict[str, str]:
    """Our names -> the columns that would make the row readable; empty where there is no guess.

    Args:
        row: a row without a known form, by our names.
        columns: what is mapped already.
    """
    free = [name for name in row.names() if name not in columns.values()]
    if turns := next((name for name in free if looks_like_turns(row.peek(name))), None):
        return {"messages": turns}
    if "messages" in row or "conversations" in row:
        return {}
    question = _taken("instruction", "prompt", row=row) or _nearest(_QUESTIONS, free)
    if question is None:
        return {}
    ours = ("prompt", "completion") if question == "prompt" else ("instruction", "output")
    others = [name for name in free if name != question]
    answer = ours[1] if ours[1] in row else _nearest(_ANSWERS, others)
    if answer is None:
        return {}
    guessed = {ours[0]: question}
    if ours[0] == "instruction" and "input" not in row:
        document = _nearest(_DOCUMENTS, [name for name in others if name != answer])
        guessed |= {"input": document} if document else {}
    guessed[ours[1]] = answer
    return {name: column for name, column in guessed.items() if name != column}


def guess_preferred(row: Keys) -> dict[str, str]:
    """Our names -> the columns to learn of a row with a preferred and a rejected answer."""
    chosen = row.peek("chosen")
    if chosen is None:
        # ms-swift's form: the preferred answer is the row's own.
        whole = _taken("messages", "conversations", row=row)
        return {whole: whole} if whole else {}
    if looks_like_turns(chosen):
        first = chosen[0] if isinstance(chosen, list | tuple) else chosen
        if first.get("role", first.get("from")) not in ("assistant", "gpt", "model"):
            return {"messages": "chosen"}
    if "messages" in row or "conversations" in row:
        return {}
    if "prompt" in row:
        return {"completion": "chosen"}
    question = _nearest(_QUESTIONS, [name for name in row.names() if name in row])
    if question is None:
        return {}
    guessed = {"instruction": question, "output": "chosen"}
    return {name: column for name, column in guessed.items() if name != column}


def _taken(*names: str, row: Keys) -> str | None:
    return next((name for name in names if name in row), None)


def _nearest(known: Sequence[str], columns: Sequence[str]) -> str | None:
    """The column that is called most like one of the known names, which stand in order."""
    folded = {_folded(name): name for name in reversed(columns)}
    for name in known:
        if name in folded:
            return folded[name]
    for name in known:
        if near := difflib.get_close_matches(name, folded, 1, cutoff=0.8):
            return folded[near[0]]
    return None


def _folded(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name)
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).casefold()
