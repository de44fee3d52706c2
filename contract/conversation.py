"""What one row of a dataset says: a conversation, its tools, and which answers are learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Required

# pydantic reads the standard library's only from Python 3.12 on.
from typing_extensions import TypedDict


class FunctionCall(TypedDict):
    """Which function is called, with which arguments by name."""

    name: str
    arguments: dict[str, Any]


class ToolCall(TypedDict, total=False):
    """A call that an assistant turn makes; `id` is what the tool's turn refers to."""

    type: Required[str]
    function: Required[FunctionCall]
    id: str


class Message(TypedDict, total=False):
    """One turn, with the keys that chat templates read.

    `role` is system, user, assistant or tool. `content` is text, and empty only where an assistant
    turn calls tools or a tool returns nothing. `reasoning_content` is an assistant turn's reasoning
    without any markers around it. `tool_call_id` and `name` belong to tool turns.
    """

    role: Required[str]
    content: Required[str]
    reasoning_content: str
    tool_calls: list[ToolCall]
    tool_call_id: str
    name: str


# A function that a model may call, as JSON schema: {"type": "function", "function": {...}}.
Tool = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """A conversation whose last turn is an answer to learn.

    Attributes:
        messages: an optional system turn, then the others; the last is an assistant's.
        tools: the functions that the model may call, in the whole conversation.
        unlearned: indices of assistant turns that are context and bear no loss (`weight` 0).
        unread: keys and columns of the row that were not read, such as `id` or `messages[].date`.
    """

    messages: list[Message]
    tools: list[Tool] = field(default_factory=list)
    unlearned: frozenset[int] = frozenset()
    unread: frozenset[str] = frozenset()
