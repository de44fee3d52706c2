"""The table of row forms: turn a row, in any of them, into one conversation of messages.

The launcher takes from it the columns that a recipe may map a dataset's own onto; the stages
`prepare` and `questions` read rows by it. A new form is an entry of `FORMS`, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from contract.conversation import Conversation, Message
from contract.errors import did_you_mean

_ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "observation": "tool",
}


class BadRow(ValueError):
    """Why a row cannot be read, and the remedy. The caller knows where the row is."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True)
class RowForm:
    """Columns that make a row one of this form, those that it may have besides, and its reader."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], list[Message]]


def conversation_of(
    values: Mapping[str, Any], columns: Mapping[str, str], system_prompt: str | None
) -> Conversation:
    """What the row says: an optional system turn, then the others, the last one the assistant's.

    Args:
        values: the row as the file has it.
        columns: our name for a column -> the dataset's name for it.
        system_prompt: put before conversations that have no system turn of their own.

    Raises:
        BadRow: the row has no known form, or nothing that can be learned.
    """
    named = _renamed(values, columns)
    messages = _form_of(named).read(named)
    if system_prompt and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system_prompt}, *messages]
    _check(messages)
    return Conversation(messages)


def _renamed(values: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    if not columns:
        return dict(values)
    named: dict[str, Any] = {}
    for ours, theirs in columns.items():
        if theirs not in values:
            hint = did_you_mean(theirs, values)
            its_columns = f"Its columns: {', '.join(map(str, values))}."
            raise BadRow(f"has no column {theirs!r}", f"{hint} {its_columns}".lstrip())
        named[ours] = values[theirs]
    return named


def _form_of(row: Mapping[str, Any]) -> RowForm:
    present = {name for name, value in row.items() if value is not None}
    for form in FORMS:
        if present.issuperset(form.required):
            return form
    for form in FORMS:
        if form.required[0] in present:
            missing = next(name for name in form.required if name not in present)
            raise BadRow(f"has no {missing!r}", "A row without an answer cannot be trained on.")
    raise BadRow(
        f"has no known form; its columns: {', '.join(map(str, row)) or 'none'}",
        "Map them: --set columns.instruction=COLUMN --set columns.output=COLUMN.",
    )


def _plain(value: Any) -> str:
    """Text as it is; documents and lists as JSON (exporters put whole documents in `input`)."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _with_system(row: Mapping[str, Any], turns: list[Message]) -> list[Message]:
    system = _plain(row.get("system") or "").strip()
    return [{"role": "system", "content": system}, *turns] if system else turns


def _from_instruction(row: Mapping[str, Any]) -> list[Message]:
    question = _plain(row["instruction"])
    document = row.get("input")
    if document is not None and _plain(document).strip():
        question = f"{question}\n\n{_plain(document)}" if question.strip() else _plain(document)
    return _with_system(row, _turns(question, _plain(row["output"])))


def _from_prompt(row: Mapping[str, Any]) -> list[Message]:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return _from_messages({"messages": [*prompt, *completion]})
    return _with_system(row, _turns(_plain(prompt), _plain(completion)))


def _turns(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _from_messages(row: Mapping[str, Any]) -> list[Message]:
    return _read_turns(
        row["messages"],
        column="messages",
        role_key="role",
        text_key="content",
        roles={role: role for role in _ROLES},
    )


def _from_sharegpt(row: Mapping[str, Any]) -> list[Message]:
    turns = row["conversations"]
    openai_form = isinstance(turns, list) and all(
        isinstance(turn, dict) and "role" in turn for turn in turns
    )
    if openai_form:
        return _from_messages({"messages": turns})
    messages = _read_turns(
        turns, column="conversations", role_key="from", text_key="value", roles=_SHAREGPT_ROLES
    )
    return _with_system(row, messages)


def _read_turns(
    turns: Any, *, column: str, role_key: str, text_key: str, roles: Mapping[str, str]
) -> list[Message]:
    if not isinstance(turns, list) or not turns:
        raise BadRow(f"{column} is not a list of turns")
    messages: list[Message] = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or role_key not in turn or text_key not in turn:
            raise BadRow(f"{column}: turn {number} has no {role_key!r} and {text_key!r}")
        role = roles.get(str(turn[role_key]))
        if role is None:
            raise BadRow(
                f"{column}: turn {number} has the unknown role {turn[role_key]!r}",
                f"Known: {', '.join(roles)}.",
            )
        messages.append({"role": role, "content": _content(column, number, turn[text_key])})
    return messages


def _content(column: str, number: int, content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        return "".join(str(part.get("text", "")) for part in content)
    raise BadRow(f"{column}: turn {number} contains something other than text")


_INST_TURN = re.compile(r"\[INST\](.*?)\[/INST\](.*?)(?=</s>|<s>|\[INST\]|\Z)", re.DOTALL)
_SYS = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>(.*)", re.DOTALL)


def _from_inst_text(row: Mapping[str, Any]) -> list[Message]:
    text = _plain(row["text"])
    turns = _INST_TURN.findall(text)
    if not turns:
        raise BadRow(
            "text has no [INST] ... [/INST] turn",
            "Plain text has no question to answer; use instruction and output instead.",
        )
    messages: list[Message] = []
    for question, answer in turns:
        if not messages and (system := _SYS.fullmatch(question)):
            messages.append({"role": "system", "content": system[1].strip()})
            question = system[2]
        messages += _turns(question.strip(), answer.strip())
    return messages


def _check(messages: list[Message]) -> None:
    roles = [message["role"] for message in messages]
    if roles[-1] != "assistant":
        raise BadRow(f"ends with a {roles[-1]} turn", "The last turn is the answer to learn.")
    if "user" not in roles:
        raise BadRow("has no user turn")
    if "system" in roles[1:]:
        raise BadRow("has a system turn after the first turn")
    for message in messages:
        # An empty answer teaches silence; an empty question teaches to guess.
        if message["role"] in ("user", "assistant") and not message["content"].strip():
            side = "question" if message["role"] == "user" else "answer"
            raise BadRow(f"has an empty {side}", "Fill it in or remove the row.")


# In the order in which they are tried: the first whose columns a row has is its form.
FORMS = (
    RowForm(("messages",), (), _from_messages),
    RowForm(("conversations",), ("system",), _from_sharegpt),
    RowForm(("instruction", "output"), ("input", "system"), _from_instruction),
    RowForm(("prompt", "completion"), ("system",), _from_prompt),
    # Llama 2's markers: <s>[INST] question [/INST] answer </s>.
    RowForm(("text",), (), _from_inst_text),
)
# What a recipe's `columns` may map a dataset's own columns onto.
COLUMN_NAMES = tuple(
    dict.fromkeys(name for form in FORMS for name in (*form.required, *form.optional))
)
