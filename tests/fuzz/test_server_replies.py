"""Whatever answers in an Ollama server's place: read, or a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.serving import Serving
from launcher.pipeline.model_files import ModelFiles
from launcher.serving.chat_model import OllamaModel
from launcher.serving.ollama_server import OllamaServer, server_version
from tests.fuzz.documents import FUZZED, as_bytes, changed, damaged, no_hang, values
from tests.fuzz.test_settings import sentence
from tests.stand_in import Reply, StandIn, running

pytestmark = pytest.mark.slow

FILES = ModelFiles(
    name="m",
    folder=Path(),
    serving=Serving(gguf="gguf/m.gguf", template=None, system=None, parameters={}),
    blobs={"gguf/m.gguf": "sha256:0"},
)
# What a real one says, in its shortest form.
REPLIES: list[dict[str, Any]] = [
    {"models": [{"name": "m:latest", "model": "m:latest", "digest": "0" * 64}]},
    {"modelfile": "FROM /blobs/sha256-0", "template": "{{ .Prompt }}", "capabilities": ["x"]},
    {"message": {"role": "assistant", "content": "four"}, "done": True, "done_reason": "stop"},
    {"response": "four", "done": True, "context": [1, 2], "prompt_eval_count": 3},
    {"status": "success"},
    {"error": "model 'm' not found"},
    {"version": "0.34.1"},
]
bodies = st.one_of(
    st.sampled_from(REPLIES).flatmap(changed).map(as_bytes),
    st.sampled_from(REPLIES).flatmap(lambda reply: damaged(json.dumps(reply))),
    values.map(as_bytes),
)
REQUESTS = {
    "models": lambda server: server.models(),
    "digest": lambda server: server.digest("m"),
    "has_blob": lambda server: server.has_blob("sha256:0"),
    "create": lambda server: server.create("m", FILES, lambda status: None),
    "show": lambda server: server.show("m"),
    "copy": lambda server: server.copy("m", "n"),
    "delete": lambda server: server.delete("m", patience_s=0.1),
    "generate": lambda server: server.generate(model="m", prompt="p"),
    "chat": lambda server: server.chat(model="m", messages=[]),
    "ask": lambda server: OllamaModel(server, "m", "m", "d").ask(
        [{"role": "user", "content": "two and two"}], max_new_tokens=4
    ),
    "version": lambda server: server_version(),
}


@pytest.fixture(scope="module")
def server():
    """One for all: its reply is changed between requests."""
    with running(StandIn(lambda asked: Reply())) as started:
        yield started


@FUZZED
@given(
    body=bodies,
    status=st.sampled_from([200, 200, 200, 201, 204, 301, 400, 404, 418, 500]),
    name=st.sampled_from(sorted(REQUESTS)),
)
def test_replies(server, body, status, name):
    server.reply = lambda asked: Reply(status, b"" if status == 204 else body)
    with pytest.MonkeyPatch.context() as patch, no_hang():
        patch.setenv("OLLAMA_HOST", server.address)
        try:
            REQUESTS[name](OllamaServer(server.address, "0.34.1"))
        except UserError as error:
            sentence(error)


def test_what_is_sound_is_read(server):
    """The test above would pass as well if everything were refused."""
    server.reply = lambda asked: Reply(200, as_bytes(REPLIES[0]))
    assert OllamaServer(server.address, "0.34.1").digest("m") == "0" * 64
    server.reply = lambda asked: Reply(200, as_bytes(REPLIES[2]))
    assert REQUESTS["ask"](OllamaServer(server.address, "0.34.1")).text == "four"
