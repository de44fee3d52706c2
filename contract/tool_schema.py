"""A tool's schema as it reaches a model through Ollama.

Ollama reads a request's tools into structures of its own and writes them anew: in its order of the
keys, with the keys of other values sorted, and without those it has no place for (`ToolFunction`
and `ToolProperty` in its api/types.go, 0.34.1). What is trained is what it writes; any other order
would be another prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contract.conversation import Tool

_FUNCTION = ("name", "description", "parameters")
_PARAMETERS = ("type", "$defs", "items", "required", "properties")
_PROPERTY = ("anyOf", "type", "items", "description", "enum", "properties", "required")


def as_served(tool: Tool) -> tuple[Tool, set[str]]:
    """The tool as a model is given it, and the names of the keys that no model is given.

    A function without parameters takes none.
    """
    lost: set[str] = set()
    lost.update(key for key in tool if key not in ("type", "function"))
    function = _ordered(tool["function"], _FUNCTION, lost)
    parameters = function.get("parameters")
    if not isinstance(parameters, Mapping):
        parameters = {"type": "object", "properties": {}}
    ordered = _ordered(parameters, _PARAMETERS, lost)
    ordered.setdefault("type", "object")
    properties = parameters.get("properties")
    ordered = {key: ordered[key] for key in _PARAMETERS if key in ordered}
    ordered["properties"] = _properties(properties, lost)
    function["parameters"] = ordered
    return {"type": "function", "function": function}, lost


def _ordered(values: Mapping[str, Any], order: tuple[str, ...], lost: set[str]) -> dict[str, Any]:
    lost.update(key for key in values if key not in order)
    # Empty ones are left out, as Go's `omitempty` does.
    return {
        key: _sorted(values[key]) if key in ("$defs", "items", "enum") else values[key]
        for key in order
        if values.get(key) not in (None, "", [], {})
    }


def _properties(properties: Any, lost: set[str]) -> dict[str, Any]:
    if not isinstance(properties, Mapping):
        return {}
    return {name: _property(value, lost) for name, value in properties.items()}


def _property(value: Any, lost: set[str]) -> Any:
    if not isinstance(value, Mapping):
        return value
    found = _ordered(value, _PROPERTY, lost)
    if isinstance(found.get("type"), list) and len(found["type"]) == 1:
        (found["type"],) = found["type"]
    if "anyOf" in found and isinstance(found["anyOf"], list):
        found["anyOf"] = [_property(one, lost) for one in found["anyOf"]]
    if "properties" in found:
        found["properties"] = _properties(found["properties"], lost)
    return found


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(one) for one in value]
    return value
