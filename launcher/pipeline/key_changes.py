"""What changed between two keys of a stage, in the words of whoever changed it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from launcher.pipeline.stages import KeyParts

_SHOWN_LETTERS = 30
INPUT_NAMES = {
    "data": "the dataset",
    "evaluation": "the evaluation rows",
    "base": "the base",
    "llama_cpp": "llama.cpp's converters",
    "tools": "llama.cpp's tools",
}


def key_changes(before: KeyParts, now: KeyParts) -> list[str]:
    """What a stage is decided by and was not decided by before, such as `lora_rank 8 -> 16`.

    That a stage before it has another key is said by that stage. Nothing is said where nothing is
    known of before: an earlier version recorded the key alone.
    """
    if not before:
        return []
    return [
        *_recipe_changes(_part(before, "recipe"), _part(now, "recipe")),
        *_input_changes(_part(before, "inputs"), _part(now, "inputs")),
        *(["the locked packages"] if before["lock"] != now["lock"] else []),
        *(["this stage's code"] if before["code"] != now["code"] else []),
        *(["the version of Affineur"] if before["contract"] != now["contract"] else []),
    ]


def _part(parts: KeyParts, name: str) -> Mapping[str, JsonValue]:
    found = parts.get(name)
    return found if isinstance(found, dict) else {}


def _recipe_changes(before: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> Iterator[str]:
    for key in {**now, **before}:
        if key not in now or key not in before:
            # Another version knows it, and no person changed it.
            yield key
        elif before[key] != now[key]:
            yield f"{key} {_shown(before[key])} -> {_shown(now[key])}"


def _input_changes(before: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> Iterator[str]:
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            yield INPUT_NAMES.get(name, name)


def _shown(value: JsonValue) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_LETTERS else f"{text[: _SHOWN_LETTERS - 3]}..."
