"""Tools are trained as Ollama passes them on, and what it leaves out is said."""

import json

from contract.row_forms import conversation_of
from contract.tool_schema import as_served

TOOL = {
    "type": "function",
    "function": {
        "strict": True,
        "description": "Reads it.",
        "name": "read_stock",
        "parameters": {
            "additionalProperties": False,
            "properties": {
                "since": {"format": "date", "description": "A day.", "type": ["string"]},
                "of": {"type": "array", "items": {"type": "string", "enum": ["b", "a"]}},
                "place": {
                    "type": "object",
                    "required": ["town"],
                    "properties": {"town": {"default": "Lyon", "type": "string"}},
                },
            },
            "required": ["since"],
            "type": "object",
        },
    },
}
SERVED = (
    '{"type": "function", "function": {"name": "read_stock", "description": "Reads it.", '
    '"parameters": {"type": "object", "required": ["since"], "properties": {'
    '"since": {"type": "string", "description": "A day."}, '
    '"of": {"type": "array", "items": {"enum": ["b", "a"], "type": "string"}}, '
    '"place": {"type": "object", "properties": {"town": {"type": "string"}}, '
    '"required": ["town"]}}}}}'
)


def test_keys_stand_in_ollamas_order_and_the_others_are_named():
    tool, lost = as_served(TOOL)
    assert json.dumps(tool) == SERVED
    assert lost == {"strict", "additionalProperties", "format", "default"}
    assert as_served(tool) == (tool, set())


def test_a_function_without_parameters_takes_none():
    tool, lost = as_served({"type": "function", "function": {"name": "now"}})
    assert tool["function"]["parameters"] == {"type": "object", "properties": {}}
    assert lost == set()


def test_a_row_lists_what_no_model_is_given():
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    found = conversation_of({"messages": messages, "tools": [TOOL]}, {}, None)
    assert json.dumps(found.tools[0]) == SERVED
    assert "tools[].default" in found.unread
