"""What is sent to a server and what is taken for its answer; tests/serving has real servers."""

import json

import pytest

from contract.errors import UserError
from contract.serving import Serving
from launcher.pipeline.model_files import ModelFiles
from launcher.serving.chat_model import Answer, OllamaModel
from launcher.serving.llama_server import LlamaServerModel
from launcher.serving.ollama_server import OllamaServer
from tests.stand_in import Reply

ABLE = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ASKED = [
    {"role": "user", "content": "q"},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Hm.",
        "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"é": 1}}, "id": "1"}
        ],
    },
    {"role": "tool", "content": "2", "tool_call_id": "1", "name": "f"},
]


@pytest.fixture
def stand_in(serve):
    """A server on loopback that answers everything with `said`, and keeps what it was sent."""

    server = serve(lambda asked: server.said)
    server.said = Reply()
    return server


def sent(stand_in):
    """What it was asked, as JSON."""
    return [asked.json for asked in stand_in.asked]


def through_ollama(stand_in, status, message):
    body = message if isinstance(message, bytes) else ollama_body(message)
    stand_in.said = Reply(status, body)
    return OllamaModel(OllamaServer(stand_in.address, "0"), "m", "m", "0")


def ollama_body(message):
    return json.dumps({"message": message, "done_reason": "stop"}).encode()


def through_llama_server(stand_in, status, message):
    body = message if isinstance(message, bytes) else openai_body(message)
    stand_in.said = Reply(status, body)
    serving = Serving(gguf="g", template=None, system=None, parameters={})
    return LlamaServerModel(stand_in.address, ModelFiles("m", None, serving, {}))


def openai_body(message):
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


BOTH = pytest.mark.parametrize("through", [through_ollama, through_llama_server])


@BOTH
def test_tools_are_sent_where_there_are_some(stand_in, through):
    model = through(stand_in, 200, {"content": "oui"})
    assert model.ask(ASKED[:1], 9) == Answer("oui", "stop")
    model.ask(ASKED[:1], 9, [ABLE])
    without, with_tools = sent(stand_in)
    assert "tools" not in without
    assert with_tools["tools"] == [ABLE]


def test_a_conversation_is_sent_in_ollamas_words(stand_in):
    through_ollama(stand_in, 200, {"content": "oui"}).ask(ASKED, 9)
    _, called, answered = sent(stand_in)[0]["messages"]
    assert (called["thinking"], "reasoning_content" in called) == ("Hm.", False)
    assert called["tool_calls"][0]["function"]["arguments"] == {"é": 1}
    assert answered == {"role": "tool", "content": "2", "tool_call_id": "1", "tool_name": "f"}


def test_a_conversation_is_sent_in_openais_words(stand_in):
    through_llama_server(stand_in, 200, {"content": "oui"}).ask(ASKED, 9)
    _, called, answered = sent(stand_in)[0]["messages"]
    assert called["reasoning_content"] == "Hm."
    assert called["tool_calls"][0]["function"]["arguments"] == '{"é": 1}'
    assert called["tool_calls"][0]["id"] == answered["tool_call_id"] == "1"


@BOTH
@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "<think>\n5?\n</think>\n\n4"}, "4"),
        ({"content": "", "thinking": "4", "reasoning_content": "4"}, ""),
        ({"content": "5?</think>4"}, "4"),
        ({"content": "<think>4"}, ""),
        ({"content": None}, ""),
        (
            {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"é": [1]}}}]},
            '[{"name":"f","arguments":{"é":[1]}}]',
        ),
        ({"content": "\ud83d"}, "\ufffd"),
    ],
)
def test_what_counts_is_the_answer(stand_in, through, message, text):
    assert through(stand_in, 200, message).ask(ASKED[:1], 9).text == text


@BOTH
def test_an_answer_that_cannot_be_read_is_scored_and_ends_nothing(stand_in, through):
    body = ollama_body if through is through_ollama else openai_body
    digits = "9" * 5000
    call = {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": 0.5}}]}
    said = through(stand_in, 200, body(call).replace(b"0.5", digits.encode()))
    assert digits in said.ask(ASKED[:1], 9).text
    deep = "[" * 900 + "]" * 900
    said = through(stand_in, 200, body(call).replace(b"0.5", deep.encode()))
    assert deep in said.ask(ASKED[:1], 9).text


def test_a_call_that_the_server_cannot_read_is_scored_and_ends_nothing(stand_in):
    of_ollama = b'{"error": "error parsing tool call: raw=\'{\', err=unexpected end"}'
    said = through_ollama(stand_in, 500, of_ollama).ask(ASKED[:1], 9)
    assert "raw='{'" in said.text
    of_llama_cpp = json.dumps(
        {
            "error": {
                "message": "The model produced output that does not match the expected peg-native "
                "format: <tool_call>"
            }
        }
    ).encode()
    said = through_llama_server(stand_in, 500, of_llama_cpp).ask(ASKED[:1], 9)
    assert "<tool_call>" in said.text


@BOTH
@pytest.mark.parametrize("body", [b"<html>", b"\xff", b"", b"{}", b"5", b'{"choices": [5]}'])
def test_a_reply_of_something_else_is_a_sentence(stand_in, through, body):
    with pytest.raises(UserError):
        through(stand_in, 200, body).ask(ASKED[:1], 9)
