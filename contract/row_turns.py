"""Read the turns of a conversation, their tool calls and tools, under any of their usual names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from contract import exact_json
from contract.conversation import Message, Tool, ToolCall
from contract.row_keys import BadRow, Keys, parsed, text_of

# The role of a turn whose text is a call: LLaMA-Factory's `function_call`, ms-swift's `tool_call`.
_CALL = "call"
_COMMON_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "tool_response": "tool",
    "tool_call": _CALL,
    "function_call": _CALL,
}
_SHAREGPT_ROLES = {
    **_COMMON_ROLES,
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "observation": "tool",
}
# Keys of a row or a turn that hold what is no text.
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
_TEXT_PARTS = ("text", "input_text", "output_text")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_MARKS = ("weight", "train", "training", "loss")
_SPANS = ("train_detail", "training_detail")
# What belongs to the row, or to a turn under another name, with that name.
_ELSEWHERE = {
    "tools": "the row's tools",
    "functions": "the row's tools",
    "function_calls": "tool_calls",
}


class Turn(NamedTuple):
    """A turn, and whether it is learned if it is an assistant's."""

    message: Message
    learned: bool = True

    @property
    def role(self) -> str:
        """Whose it is."""
        return self.message["role"]


def looks_like_turns(value: Any) -> bool:
    """Whether a value that may be text is one or more turns: objects with a role and a content."""
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, list | tuple) or not turns:
        return False
    return all(
        isinstance(turn, Mapping)
        and (("role" in turn and _SAID & turn.keys()) or ("from" in turn and "value" in turn))
        for turn in turns
    )


_SAID = {"content", "tool_calls", "function_call"}


def read_turns(row: Keys, column: str) -> list[Turn]:
    """The turns in a column: a list, one turn, or either as JSON text.

    Raises:
        BadRow: it holds no turns, or one that cannot be learned from.
    """
    name = row.name(column)
    given = row.read(column)
    if isinstance(given, str) and given.lstrip().startswith(("[", "{")):
        given = parsed(given, name)
    if isinstance(given, Mapping):
        given = [given]
    if not isinstance(given, list | tuple) or not given:
        raise BadRow(f"{name} is not a list of turns")
    sharegpt = all(
        isinstance(turn, Mapping) and "role" not in turn and "from" in turn for turn in given
    )
    role_key, text_key = ("from", "value") if sharegpt else ("role", "content")
    roles = _SHAREGPT_ROLES if sharegpt or column == "conversations" else _COMMON_ROLES
    turns: list[Turn] = []
    for number, values in enumerate(given, 1):
        where = f"{name}: turn {number}"
        keys = Keys(values if isinstance(values, Mapping) else {})
        role = keys.read(role_key)
        if role is None:
            raise BadRow(f"{where} has no {role_key!r} and {text_key!r}")
        kind = roles.get(role) if isinstance(role, str) else None
        if kind is None:
            raise BadRow(
                f"{where} has the unknown role {str(role)!r}", f"Known: {', '.join(roles)}."
            )
        turn = _read_turn(keys, kind, text_key, where)
        previous = turns[-1] if turns else None
        if kind == _CALL and previous and previous.role == "assistant":
            # What is said before a call and calls in a row are one turn, in two or more pieces.
            turns[-1] = _joined(previous, turn, where)
        else:
            turns.append(turn)
        row.note_unread(f"{name}[]", keys)
    return turns


def _joined(first: Turn, call: Turn, where: str) -> Turn:
    if first.learned != call.learned:
        raise BadRow(f"{where} is one turn with the call before it, but has another weight")
    calls = [*first.message.get("tool_calls", []), *call.message["tool_calls"]]
    return Turn({**first.message, "tool_calls": calls}, first.learned)


def _read_turn(keys: Keys, kind: str, text_key: str, where: str) -> Turn:
    _refuse_misplaced(keys, where)
    learned = _is_learned(keys, kind, where)
    if kind == _CALL:
        calls = _calls(keys.read(text_key), keys, text_key, where)
        return Turn({"role": "assistant", "content": "", "tool_calls": calls}, learned)
    calls = _tool_calls(keys, kind, where)
    message: Message = {"role": kind, "content": _content(keys, kind, text_key, where, bool(calls))}
    if kind == "assistant" and (reasoning := _reasoning(keys, where)):
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    if kind == "tool":
        if call_id := keys.text("tool_call_id"):
            message["tool_call_id"] = call_id
        if function := keys.text("name"):
            message["name"] = function
    return Turn(message, learned)


def _refuse_misplaced(keys: Keys, where: str) -> None:
    unread = keys.unread()
    if found := next((name for name in MEDIA if name in unread), None):
        raise BadRow(f"{where} has {found}, and only text is trained on", "Remove such rows.")
    if found := next((name for name in _ELSEWHERE if name in unread), None):
        raise BadRow(f"{where} has {found}", f"Move them to {_ELSEWHERE[found]}.")


def _content(keys: Keys, kind: str, text_key: str, where: str, calls: bool) -> str:
    content = keys.read(text_key)
    if content is None:
        if calls or (kind == "tool" and text_key in keys.names()):
            return ""
        raise BadRow(f"{where} has no {text_key!r}")
    if isinstance(content, list | tuple) and all(
        isinstance(part, Mapping)
        and part.get("type") in _TEXT_PARTS
        and isinstance(part.get("text"), str)
        for part in content
    ):
        texts = []
        for values in content:
            part = Keys(values)
            part.read("type")
            texts.append(part.text("text"))
            keys.note_unread(f"{text_key}[]", part)
        return "".join(texts)
    # A tool returns values as often as text; in other turns they are pictures, and the like.
    if isinstance(content, Mapping | list | tuple) and kind != "tool":
        raise BadRow(
            f"{where} contains something other than text",
            "Only text is trained on: remove such rows, or the parts that are not text.",
        )
    if (
        kind == "tool"
        and isinstance(content, list)
        and any(
            isinstance(part, Mapping) and part.get("type") in ("image", "image_url")
            for part in content
        )
    ):
        raise BadRow(f"{where} contains something other than text", "Only text is trained on.")
    return text_of(content, f"{where}: {text_key}")


def _reasoning(keys: Keys, where: str) -> str:
    found = {name: keys.read(name) for name in _REASONING if name in keys}
    for name, value in found.items():
        if not isinstance(value, str):
            raise BadRow(f"{where}: {name} is not a text")
    texts = {value for value in found.values() if value.strip()}
    if len(texts) > 1:
        raise BadRow(f"{where} has reasoning twice ({', '.join(found)})", "Keep one of them.")
    return texts.pop() if texts else ""


def _is_learned(keys: Keys, kind: str, where: str) -> bool:
    """What the turn's `weight` says, or `train`, which axolotl calls it, or ms-swift's `loss`."""
    if spans := next((name for name in _SPANS if name in keys.unread()), None):
        raise BadRow(f"{where}: {spans} marks parts of a turn", "Only whole turns are learned.")
    said: dict[str, bool] = {}
    for name in _MARKS:
        value = keys.peek(name)
        if name == "weight" and value is not None:
            number = float(value.text) if isinstance(value, exact_json.Number) else value
            if not isinstance(number, bool | int | float) or number not in (0, 1):
                raise BadRow(
                    f"{where} has the weight {text_of(value, where)}",
                    "Use 1, or 0 for an answer that is context and not learned.",
                )
            value = bool(number)
        if isinstance(value, bool):
            keys.read(name)
            said[name] = value
    if len(set(said.values())) > 1:
        raise BadRow(f"{where}: {' and '.join(said)} contradict each other", "Keep one of them.")
    if kind not in ("assistant", _CALL) and any(said.values()):
        name = next(iter(said))
        raise BadRow(
            f"{where} is a {kind} turn with {name} {'1' if name == 'weight' else 'true'}",
            f"Only assistant turns are learned: remove its {name}.",
        )
    return all(said.values())


def _tool_calls(keys: Keys, kind: str, where: str) -> list[ToolCall]:
    calls: list[ToolCall] = []
    for name in ("tool_calls", "function_call"):
        if (value := keys.peek(name)) is None or value in ([], "", {}):
            continue
        if kind != "assistant":
            raise BadRow(f"{where} has {name}, and is a {kind} turn")
        if calls:
            raise BadRow(f"{where} has tool_calls and function_call", "Keep tool_calls.")
        calls = _calls(keys.read(name), keys, name, where)
    return calls


def _calls(value: Any, keys: Keys, name: str, where: str) -> list[ToolCall]:
    """Calls as a list, one of them, or either as JSON text; each bare or under `function`."""
    where = f"{where}: {name}"
    if isinstance(value, str):
        value = parsed(value, where)
    calls = [value] if isinstance(value, Mapping) else value
    if not isinstance(calls, list | tuple) or not calls:
        raise BadRow(f"{where} is not a list of calls", _CALL_FORM)
    read: list[ToolCall] = []
    for given in calls:
        if not isinstance(given, Mapping):
            raise BadRow(f"{where} is not a list of calls", _CALL_FORM)
        call = Keys(given)
        if (call_type := call.read("type")) not in (None, "function"):
            raise BadRow(f"{where} has the type {str(call_type)!r}", "Only functions are called.")
        inner = call.read("function")
        function = Keys(inner) if isinstance(inner, Mapping) else call
        called = function.read("name")
        if not isinstance(called, str) or not called:
            raise BadRow(f"{where} has a call without a name", _CALL_FORM)
        key = "arguments" if "arguments" in function else "parameters"
        arguments = _arguments(function.read(key), f"{where}: the arguments of {called}")
        made: ToolCall = {
            "type": "function",
            "function": {"name": called, "arguments": arguments},
        }
        if call_id := call.text("id"):
            made["id"] = call_id
        read.append(made)
        if function is not call:
            call.note_unread("function", function)
        keys.note_unread(f"{name}[]", call)
    return read


_CALL_FORM = 'A call is {"name": ..., "arguments": {...}}.'


def _arguments(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str):
        value = parsed(value, where) if value.strip() else {}
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadRow(f"{where} are not an object", _CALL_FORM)
    return dict(_native(value, where))


def _native(value: Any, where: str) -> Any:
    try:
        return exact_json.native(value)
    except ValueError as error:
        raise BadRow(f"{where}: {error}", "Write it as a text.") from None


def read_tools(row: Keys) -> list[Tool]:
    """The functions in the row's `tools`, or in `functions`, as they were called before.

    Raises:
        BadRow: they are no list of functions, nor JSON text of one.
    """
    tools: list[Tool] = []
    for column in ("tools", "functions"):
        name = row.name(column)
        value = row.peek(column)
        if isinstance(value, str) and value.strip():
            value = parsed(value, name)
        if value in (None, "", [], {}):
            row.read(column)
            continue
        given = [value] if isinstance(value, Mapping) else value
        if not isinstance(given, list | tuple):
            raise BadRow(f"{name} is not a list of functions", _TOOL_FORM)
        if tools:
            raise BadRow("has tools and functions", "Keep tools.")
        row.read(column)
        tools = [_tool(item, f"{name}: function {n}") for n, item in enumerate(given, 1)]
    return tools


_TOOL_FORM = (
    'A function is {"name": ..., "description": ..., "parameters": {JSON schema}}; '
    "if the column is something else, rename it."
)


def _tool(value: Any, where: str) -> Tool:
    if isinstance(value, str):
        value = parsed(value, where)
    if not isinstance(value, Mapping):
        raise BadRow(f"{where} is not an object", _TOOL_FORM)
    kind, function = value.get("type") or "function", value.get("function")
    if kind != "function":
        raise BadRow(f"{where} has the type {str(kind)!r}", _TOOL_FORM)
    if isinstance(function, Mapping):
        wrapper = {**value, "type": "function"}
    else:
        wrapper = {"type": "function"}
        function = {key: item for key, item in value.items() if key != "type"}
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise BadRow(f"{where} has no name", _TOOL_FORM)
    if "parameters" not in function and "input_schema" in function:
        # Anthropic's name for it.
        function = {
            "parameters" if key == "input_schema" else key: item for key, item in function.items()
        }
    return dict(_native({**wrapper, "function": function}, where))
