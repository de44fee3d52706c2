"""An answer is what was said: without reasoning, with the calls that were made."""

import json

import pytest

from contract.answer_text import answer_text
from contract.json_reading import BadJson, read_reply
from contract.reasoning import opens_reasoning, without_reasoning


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("oui", "oui"),
        ("  oui\n", "  oui\n"),
        ("<think>\nHm.\n</think>\n\noui", "oui"),
        ("\n<think></think>oui", "oui"),
        ("<think>a</think>\n<think>b</think>oui", "oui"),
        # The prompt opened the block.
        ("Hm.\n</think>\n\noui", "oui"),
        ("</think>\n\noui", "oui"),
        # Nothing was said yet.
        ("<think>\nHm.", ""),
        ("<think>a</think>\n<think>b", ""),
        ("a</think><think>b", ""),
        # An answer about markers.
        ("Use <think> and </think>.", "Use <think> and </think>."),
        ("Use <think>.", "Use <think>."),
        ("<think>It's </think> that ends it.\n</think>oui", "oui"),
        ("[THINK]Hm.[/THINK]oui", "oui"),
        ("<|START_THINKING|>Hm.<|END_THINKING|>oui", "oui"),
        ("", ""),
    ],
)
def test_reasoning_is_told_from_the_answer(text, answer):
    assert without_reasoning(text) == answer
    assert without_reasoning(answer) == answer


def test_a_text_that_never_leaves_the_prompts_block_is_reasoning():
    assert without_reasoning("Hm. 42", opened=True) == ""
    assert without_reasoning("Hm.</think>42", opened=True) == "42"
    assert without_reasoning("<think>Hm.</think>42", opened=True) == "42"
    assert opens_reasoning("<|im_start|>assistant\n<think>\n")
    assert not opens_reasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def call(name, arguments):
    return {"function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ({"content": "oui", "thinking": "Hm."}, "oui"),
        ({"content": "oui", "reasoning_content": "Hm."}, "oui"),
        ({"content": "", "thinking": "Hm. 42"}, ""),
        ({"content": None}, ""),
        ({}, ""),
        ({"content": "oui", "tool_calls": []}, "oui"),
        (
            {"content": "", "tool_calls": [call("météo", {"ville": "Gap"})]},
            '[{"name":"météo","arguments":{"ville":"Gap"}}]',
        ),
        # OpenAI's form, with arguments as a text.
        (
            {
                "content": None,
                "tool_calls": [{"id": "1", "type": "function"} | call("f", '{"a": 1}')],
            },
            '[{"name":"f","arguments":{"a":1}}]',
        ),
        ({"tool_calls": [call("f", "{a")]}, '[{"name":"f","arguments":"{a"}]'),
        (
            {"content": "<think>Hm.</think>\nJe regarde.", "tool_calls": [call("f", {})]},
            'Je regarde.\n[{"name":"f","arguments":{}}]',
        ),
    ],
)
def test_an_answer_is_its_text_and_its_calls(message, answer):
    assert answer_text(message) == answer


def test_what_no_file_can_hold_is_replaced():
    halves = json.loads('{"content": "\\ud83d \\ud83d\\ude00"}')
    assert answer_text(halves) == "\ufffd 😀"
    in_call = answer_text({"tool_calls": [call("f", {"a": "\udc00"})]})
    assert in_call.encode()
    assert "\ufffd" in in_call


@pytest.mark.parametrize("arguments", ["9" * 5000, "[" * 5000, '{"a":' * 900 + "1" + "}" * 900])
def test_arguments_that_python_cannot_read_are_shown_by_their_characters(arguments):
    assert arguments in json.loads(answer_text({"tool_calls": [call("f", arguments)]}))[0].values()


def test_a_servers_reply_is_read_or_refused_in_words():
    assert read_reply('{"a": ' + "9" * 5000 + "}") == {"a": "9" * 5000}
    for text in (b"<html>", b"\xff", "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900):
        with pytest.raises(BadJson):
            read_reply(text)
