"""What counts as a model's answer: its text without reasoning, and the calls that it makes.

Servers and datasets give an answer as a message; everything that is scored, kept or shown is the
one text that is made of it here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from contract.json_reading import BadJson, read_reply
from contract.reasoning import without_reasoning


def answer_text(message: Mapping[str, Any]) -> str:
    """The answer of an assistant's message, in OpenAI's form, Ollama's or a dataset's.

    Reasoning is no part of it, whether it stands before the text or in a field of its own. Tool
    calls are written behind the text, or in its place, as a compact JSON array of objects with
    `name` and `arguments`, so that an answer that calls is never taken for an empty one and can be
    compared by `json_f1`.
    """
    text = without_reasoning(well_formed(str(message.get("content") or "")))
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return text
    written = json.dumps([_call(call) for call in calls], ensure_ascii=False, separators=(",", ":"))
    return "\n".join(part for part in (text.strip(), well_formed(written)) if part)


def well_formed(text: str) -> str:
    """The text with a replacement character for each half of a surrogate pair that stands alone.

    JSON can say half an emoji (`\\ud83d`), and no file can hold it.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _call(call: Any) -> Any:
    function = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(function, dict):
        return function
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        # OpenAI's form has them as a JSON text; what is none stays a text.
        with suppress(BadJson):
            arguments = read_reply(arguments)
    return {"name": function.get("name"), "arguments": arguments}
