"""Conversations that try a chat template and those who write with it: of every kind there is.

Those of `trainer.modelfile.template.PROBES` decide whether there is a Go template at all. Here are
more, each of which some server's form cannot say: those are compared as well, and where the data
have no such turns, a difference is told and fails nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contract.conversation import Message, Tool
from trainer.chat import render
from trainer.modelfile.template import PROBES


@dataclass(frozen=True)
class Probe:
    """A conversation; `special` says what some server's form has no way to write."""

    messages: list[Message]
    tools: tuple[Tool, ...] = ()
    special: str | None = None


CONSECUTIVE, EDGES, TOOLS = "consecutive turns of one role", "white space at the edges", "tools"

_WEATHER: Tool = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Le temps qu'il fait dans une ville",
        "parameters": {
            "type": "object",
            # In the order of `contract.tool_schema`.
            "required": ["city"],
            "properties": {"city": {"type": "string", "description": "La ville"}},
        },
    },
}
_ASKED: Message = {"role": "user", "content": "Quel temps fait-il à Évry ?"}
_CALLED: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00001",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Évry"}},
        }
    ],
}
_RETURNED: Message = {
    "role": "tool",
    "content": '{"degrees": 21}',
    "name": "get_weather",
    "tool_call_id": "call00001",
}

_SPECIAL = (
    Probe(
        [{"role": "user", "content": "Un."}, {"role": "user", "content": "Deux."}],
        special=CONSECUTIVE,
    ),
    Probe(
        [
            {"role": "user", "content": "Un."},
            {"role": "assistant", "content": "Deux."},
            {"role": "assistant", "content": "Trois."},
            {"role": "user", "content": "Quatre."},
        ],
        special=CONSECUTIVE,
    ),
    Probe([{"role": "user", "content": " \n Un. \n\n"}], special=EDGES),
    Probe(
        [
            {"role": "system", "content": "\tRéponds.  "},
            {"role": "user", "content": "Un."},
            {"role": "assistant", "content": "\n Deux. "},
            {"role": "user", "content": "Trois."},
        ],
        special=EDGES,
    ),
    Probe([_ASKED], (_WEATHER,), TOOLS),
    Probe([{"role": "system", "content": "Sois bref."}, _ASKED], (_WEATHER,), TOOLS),
    Probe([_ASKED, _CALLED, _RETURNED], (_WEATHER,), TOOLS),
)


def probes(tokenizer: Any, system_prompt: str | None) -> list[tuple[Probe, str]]:
    """The conversations that the template supports, each with the prompt that it makes.

    Args:
        system_prompt: the model's own, which stands in front where a conversation has none.
    """
    kept = []
    for probe in (*(Probe(messages) for messages in PROBES), *_SPECIAL):
        messages = with_system_prompt(probe.messages, system_prompt)
        text = _rendered(tokenizer, messages, probe.tools)
        # A template that passes over tools has no turns for them.
        if text is None or (probe.tools and text == _rendered(tokenizer, messages)):
            continue
        kept.append((Probe(messages, probe.tools, probe.special), text))
    return kept


def with_system_prompt(messages: Sequence[Message], system_prompt: str | None) -> list[Message]:
    """The conversation as a server has it whose model has a system prompt of its own."""
    if system_prompt and messages[0]["role"] != "system":
        return [{"role": "system", "content": system_prompt}, *messages]
    return list(messages)


def _rendered(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Tool] = ()
) -> str | None:
    import jinja2

    try:
        return render(tokenizer, messages, tools=tools, add_generation_prompt=True)
    except jinja2.TemplateError:
        return None
