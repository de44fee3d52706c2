"""The table of row forms: turn a row, in any of them, into one conversation of messages.

The launcher takes from it the columns that a recipe may map a dataset's own onto; the stages
`prepare` and `questions` read rows by it. A new form is an entry of `FORMS`, and nothing else; how
a turn is read is in `contract.row_turns`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from contract import exact_json
from contract.conversation import Conversation
from contract.errors import did_you_mean
from contract.row_guesses import guess_columns, guess_preferred
from contract.row_keys import BadRow, Keys, parsed, text_of
from contract.row_turns import MEDIA, Turn, looks_like_turns, read_tools, read_turns
from contract.tool_schema import as_served

__all__ = ("COLUMN_NAMES", "FORMS", "BadRow", "RowForm", "conversation_of")


@dataclass(frozen=True)
class RowForm:
    """Columns that make a row one of this form, those that it may have besides, and its reader."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Keys], list[Turn]]

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.required, *self.optional)


def conversation_of(
    values: Mapping[str, Any], columns: Mapping[str, str], system_prompt: str | None
) -> Conversation:
    """What the row says: an optional system turn, then the others, the last one the assistant's.

    Args:
        values: the row as the file has it.
        columns: our name for a column -> the dataset's name for it. Columns that are not in it are
            read as they are called.
        system_prompt: put before conversations that have no system turn of their own.

    Raises:
        BadRow: the row has no known form, nothing that can be learned, or something that changes
            its meaning and cannot be trained on.
    """
    if flaw := exact_json.flaw_of_row(values):
        raise BadRow(flaw.what, flaw.remedy)
    row = _renamed(values, columns)
    _refuse_pairs(row, columns)
    form = _form_of(row, columns)
    turns = form.read(row)
    tools = read_tools(row) if "tools" in form.optional else []
    served = [as_served(tool) for tool in tools]
    lost = {f"tools[].{key}" for _, keys in served for key in keys}
    _refuse_media(row)
    _refuse_unwanted(row, form)
    turns = _up_to_the_last_learned(turns)
    if system_prompt and turns[0].role != "system":
        turns = [Turn({"role": "system", "content": system_prompt}), *turns]
    _check(turns)
    return Conversation(
        messages=[turn.message for turn in turns],
        tools=[tool for tool, _ in served],
        unlearned=frozenset(
            index
            for index, turn in enumerate(turns)
            if turn.role == "assistant" and not turn.learned
        ),
        unread=row.unread() | lost,
    )


def _renamed(values: Mapping[str, Any], columns: Mapping[str, str]) -> Keys:
    for theirs in columns.values():
        if theirs not in values:
            hint = did_you_mean(theirs, values)
            its_columns = f"Its columns: {', '.join(map(str, values))}."
            raise BadRow(f"has no column {theirs!r}", f"{hint} {its_columns}".lstrip())
    mapped = {ours: values[theirs] for ours, theirs in columns.items()}
    sources = set(columns.values())
    others = {name: value for name, value in values.items() if name not in sources}
    row = Keys({**others, **mapped}, called=columns)
    # A column under a name that another one was given stays unread, and is listed so.
    row.pass_over({name: others[name] for name in others if name in mapped})
    return row


def _form_of(row: Keys, columns: Mapping[str, str]) -> RowForm:
    fitting = [form for form in FORMS if columns.keys() <= set(form.columns)]
    if not fitting:
        raise BadRow(
            f"has no known form; no form has the columns {', '.join(columns)} together",
            "Leave one of them out: configs/README.md lists the forms.",
        )
    for form in fitting:
        if all(name in row for name in form.required):
            return form
    guessed = guess_columns(row, columns)
    for form in fitting:
        if form.required[0] in row or columns.keys() & set(form.required):
            missing = next(name for name in form.required if name not in row)
            there = f"; its columns: {', '.join(row.names())}" if guessed else ""
            raise BadRow(
                f"has no {missing!r}{there}",
                "Name them" if guessed else "A row without an answer cannot be trained on.",
                columns=guessed,
            )
    raise BadRow(
        f"has no known form; its columns: {', '.join(row.names()) or 'none'}",
        "Name them" if guessed else _NAME_THEM,
        columns=guessed,
    )


_NAME_THEM = "Map them: --set columns.instruction=COLUMN --set columns.output=COLUMN."
# The answer that was rejected, where a row has two: TRL's and LLaMA-Factory's name, ms-swift's.
_REJECTED = ("rejected", "rejected_response", "rejected_messages")
_ANSWERS = {"messages", "conversations", "output", "completion", "text"}


def _refuse_pairs(row: Keys, columns: Mapping[str, str]) -> None:
    """Refuse pairs of a preferred and a rejected answer, unless the answer's column is named."""
    if _ANSWERS & columns.keys():
        return
    rejected = next((name for name in _REJECTED if name in row), None)
    if rejected is None or (rejected == "rejected" and "chosen" not in row):
        return
    preferred = guess_preferred(row)
    raise BadRow(
        f"is a pair of a preferred and a rejected answer ({rejected})",
        "Preferences are not trained on"
        + (
            "; to learn the preferred answers alone"
            if preferred
            else ": keep the preferred answer alone, as the last turn."
        ),
        columns=preferred,
    )


def _refuse_media(row: Keys) -> None:
    if found := next((name for name in MEDIA if name in row.unread()), None):
        raise BadRow(
            f"has {found}, and only text is trained on",
            f"Remove such rows, or the column {found} if the text stands without it.",
        )


def _refuse_unwanted(row: Keys, form: RowForm) -> None:
    """Refuse answers that are marked as bad (KTO). Beside `instruction`, a label may be a topic."""
    names = ("kto_tag",) if form.required[0] == "instruction" else ("kto_tag", "label")
    for name in names:
        mark = row.peek(name)
        if mark is False:
            raise BadRow(
                f"has {name} false: its answer is one to avoid",
                "Preferences are not trained on: remove such rows.",
            )
        if mark is True:
            row.read(name)


def _up_to_the_last_learned(turns: list[Turn]) -> list[Turn]:
    """Without what comes after the last answer that is learned, if only answers that are not do."""
    if turns[-1].role != "assistant" or turns[-1].learned:
        return turns
    learned = [n for n, turn in enumerate(turns) if turn.role == "assistant" and turn.learned]
    if not learned:
        raise BadRow("has no answer to learn: all assistant turns have weight 0", "Remove the row.")
    return turns[: learned[-1] + 1]


def _with_system(row: Keys, turns: list[Turn]) -> list[Turn]:
    system = row.text("system").strip()
    if not system:
        return turns
    if turns and turns[0].role == "system":
        if turns[0].message["content"].strip() == system:
            return turns
        raise BadRow(
            f"has a system turn, and another one in {row.name('system')}", "Keep one of them."
        )
    return [Turn({"role": "system", "content": system}), *turns]


def _from_instruction(row: Keys) -> list[Turn]:
    asked = _side(row, "instruction", "user")
    document = row.text("input")
    if document.strip():
        if len(asked) != 1 or asked[0].role != "user":
            raise BadRow(
                f"has {row.name('input')} beside turns in {row.name('instruction')}",
                "Put it into the last of these turns.",
            )
        question = asked[0].message["content"]
        question = f"{question}\n\n{document}" if question.strip() else document
        asked = [Turn({"role": "user", "content": question})]
    return _asked_and_answered(row, "instruction", asked, "output")


def _from_prompt(row: Keys) -> list[Turn]:
    return _asked_and_answered(row, "prompt", _side(row, "prompt", "user"), "completion")


def _asked_and_answered(row: Keys, question: str, asked: list[Turn], answer: str) -> list[Turn]:
    # What is given is not learned, answers in it neither: TRL reads such rows so.
    asked = [turn._replace(learned=False) for turn in asked]
    answered = _side(row, answer, "assistant")
    if asked[-1].role == answered[0].role == "assistant":
        raise BadRow(
            f"{row.name(question)} ends with an assistant turn",
            f"Put the whole answer into {row.name(answer)}.",
        )
    return _with_system(row, [*_history(row), *asked, *answered])


def _side(row: Keys, column: str, role: str) -> list[Turn]:
    value = row.peek(column)
    if looks_like_turns(value):
        return read_turns(row, column)
    return [Turn({"role": role, "content": row.text(column)})]


# What Alpaca's earlier turns are called where they are objects.
_PAIRS = (
    ("instruction", "output"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("query", "response"),
    ("question", "answer"),
    ("user", "assistant"),
)


def _history(row: Keys) -> list[Turn]:
    name = row.name("history")
    earlier = row.read("history")
    if isinstance(earlier, str):
        earlier = parsed(earlier, name) if earlier.strip() else None
    if not earlier:
        return []
    if looks_like_turns(earlier):
        return read_turns(row, "history")
    if not isinstance(earlier, list | tuple):
        raise BadRow(f"{name} is not a list of earlier turns", "Write pairs: [[question, answer]].")
    return [turn for n, pair in enumerate(earlier, 1) for turn in _pair(row, name, n, pair)]


def _pair(row: Keys, name: str, number: int, pair: Any) -> list[Turn]:
    where = f"{name}: turn {number}"
    said: list[Any] = []
    if isinstance(pair, Mapping):
        keys = Keys(pair)
        for question, answer in _PAIRS:
            if question in keys and answer in keys:
                said = [keys.read(question), keys.read(answer)]
                if document := keys.text("input").strip():
                    said[0] = f"{text_of(said[0], where)}\n\n{document}"
                break
        row.note_unread(f"{name}[]", keys)
    elif isinstance(pair, list | tuple) and len(pair) == 2:
        said = list(pair)
    if not said or any(exact_json.is_missing(value) for value in said):
        raise BadRow(
            f"{where} is not a question and its answer", "Write pairs: [[question, answer]]."
        )
    question, answer = (text_of(value, where) for value in said)
    return [
        Turn({"role": "user", "content": question}),
        Turn({"role": "assistant", "content": answer}),
    ]


def _from_messages(row: Keys) -> list[Turn]:
    return _with_system(row, read_turns(row, "messages"))


def _from_sharegpt(row: Keys) -> list[Turn]:
    return _with_system(row, read_turns(row, "conversations"))


# Where one turn ends and the next begins. Anywhere else, these letters are part of what is said.
_NEXT_INST_TURN = re.compile(r"</s>\s*(?:<s>)?\s*\[INST\]")
_SYS = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>(.*)", re.DOTALL)


def _from_inst_text(row: Keys) -> list[Turn]:
    text = row.text("text").strip()
    if "[INST]" not in text or "[/INST]" not in text:
        raise BadRow(
            "text has no [INST] ... [/INST] turn",
            "Plain text has no question to answer; use instruction and output instead.",
        )
    text = text.removeprefix("<s>").lstrip()
    if not text.startswith("[INST]"):
        raise BadRow("text has something before its first [INST]", _USE_MESSAGES)
    parts = _NEXT_INST_TURN.split(text.removesuffix("</s>").removeprefix("[INST]"))
    turns: list[Turn] = []
    for number, part in enumerate(parts, 1):
        question, closed, answer = part.partition("[/INST]")
        if (
            not closed
            or any(marker in question + answer for marker in ("[INST]", "[/INST]"))
            or not _balanced(question)
            or not _balanced(answer)
        ):
            raise BadRow(
                f"text: turn {number} has markers that may be text or the end of a turn",
                _USE_MESSAGES,
            )
        if number == 1 and (system := _SYS.fullmatch(question)):
            turns.append(Turn({"role": "system", "content": system[1].strip()}))
            question = system[2]
        if "<<SYS>>" in question:
            raise BadRow("has a system turn after the first turn")
        turns += [
            Turn({"role": "user", "content": question.strip()}),
            Turn({"role": "assistant", "content": answer.strip()}),
        ]
    return turns


_USE_MESSAGES = "Use messages, where each turn is a text of its own."


def _balanced(text: str) -> bool:
    """Whether each `<s>` is closed by a `</s>`, as HTML's struck text is."""
    depth = 0
    for marker in re.findall(r"</?s>", text):
        depth += 1 if marker == "<s>" else -1
        if depth < 0:
            return False
    return depth == 0


def _check(turns: list[Turn]) -> None:
    roles = [turn.role for turn in turns]
    if roles[-1] != "assistant":
        raise BadRow(f"ends with a {roles[-1]} turn", "The last turn is the answer to learn.")
    if "user" not in roles:
        raise BadRow("has no user turn")
    if "system" in roles[1:]:
        raise BadRow("has a system turn after the first turn")
    for turn in turns:
        # An empty answer teaches silence; an empty question teaches to guess.
        empty = not turn.message["content"].strip() and "tool_calls" not in turn.message
        if turn.role in ("user", "assistant") and empty:
            side = "question" if turn.role == "user" else "answer"
            raise BadRow(f"has an empty {side}", "Fill it in or remove the row.")


# In the order in which they are tried: the first whose columns a row has is its form.
FORMS = (
    RowForm(("messages",), ("system", "tools"), _from_messages),
    RowForm(("conversations",), ("system", "tools"), _from_sharegpt),
    RowForm(("instruction", "output"), ("input", "system", "history", "tools"), _from_instruction),
    RowForm(("prompt", "completion"), ("system", "history", "tools"), _from_prompt),
    # Llama 2's markers: <s>[INST] question [/INST] answer </s>.
    RowForm(("text",), (), _from_inst_text),
)
# What a recipe's `columns` may map a dataset's own columns onto.
COLUMN_NAMES = tuple(dict.fromkeys(name for form in FORMS for name in form.columns))
