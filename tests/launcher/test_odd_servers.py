"""What answers in a server's place: it is named, and nothing is sent elsewhere.

The servers are stand-ins on loopback, since no real one does this when it is asked to.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from contract.errors import UserError
from contract.serving import Serving
from launcher.pipeline.model_files import ModelFiles
from launcher.serving.http_session import is_loopback
from launcher.serving.ollama_server import OllamaServer, server_version
from tests.stand_in import DROP, SILENCE, Reply, says

FILES = ModelFiles(
    name="m",
    folder=Path(),
    serving=Serving(gguf="gguf/m.gguf", template=None, system=None, parameters={}),
    blobs={"gguf/m.gguf": "sha256:0"},
)
REQUESTS = {
    "models": lambda server: server.models(),
    "show": lambda server: server.show("m"),
    "chat": lambda server: server.chat(model="m", messages=[]),
    "create": lambda server: server.create("m", FILES, lambda status: None),
    "copy": lambda server: server.copy("m", "n"),
    "delete": lambda server: server.delete("m"),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_named_and_not_followed(serve, name, status):
    elsewhere = serve(lambda asked: Reply(body=b"{}"))
    there = {"Location": f"{elsewhere.address}/api/other"}
    server = serve(lambda asked: Reply(status, headers=there))
    with pytest.raises(UserError, match=r"redirects to .*Set OLLAMA_HOST to the server's own"):
        REQUESTS[name](OllamaServer(server.address, "0"))
    assert elsewhere.asked == []


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"[]", b"\xff"])
def test_a_reply_that_is_none_is_a_sentence(serve, name, body):
    server = serve(lambda asked: Reply(body=body))
    with pytest.raises(UserError, match=r"its reply is not (JSON|a JSON object)"):
        REQUESTS[name](OllamaServer(server.address, "0"))


@pytest.mark.parametrize("name", REQUESTS)
def test_an_error_under_http_200_is_an_error(serve, name):
    server = serve(lambda asked: says({"error": "the disk is gone"}))
    with pytest.raises(UserError, match="the disk is gone"):
        REQUESTS[name](OllamaServer(server.address, "0"))


DEEP = b"[" * 300 + b"]" * 300
NONSENSE = [
    {},
    {"models": 5},
    {"models": [5]},
    {"models": [{"name": "m"}]},
    {"models": [{"name": "m", "digest": None}]},
    {"template": 5},
    {"capabilities": "tools"},
    {"message": "hello"},
    {"response": ["a"]},
    {"context": ["a"], "response": ""},
    {"status": {}},
]


@pytest.mark.parametrize("name", ["models", "show", "create"])
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("body", [b'{"models": %b, "modelfile": %b}' % (DEEP, DEEP), DEEP])
def test_a_reply_nested_too_deeply_is_a_sentence(serve, name, status, body):
    server = serve(lambda asked: Reply(status, body))
    with pytest.raises(UserError, match="returned an error"):
        REQUESTS[name](OllamaServer(server.address, "0"))


@pytest.mark.parametrize("name", [*REQUESTS, "generate"])
@pytest.mark.parametrize("said", NONSENSE, ids=json.dumps)
def test_a_reply_of_another_shape_is_a_sentence_or_of_no_account(serve, name, said):
    server = serve(lambda asked: says(said))
    request = REQUESTS.get(name) or (lambda server: server.generate(model="m", prompt="p"))
    found = None
    with suppress(UserError):
        found = request(OllamaServer(server.address, "0"))
    # None is an error's, or that of a request whose reply says nothing.
    assert found in (None, said, {}) or name == "delete"


def test_a_connection_dropped_in_the_middle_of_a_blob_is_a_sentence(serve, tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(bytes(4_000_000))
    server = serve(lambda asked: Reply(201))
    server.cut["/api/blobs/sha256:0"] = 100_000
    with pytest.raises(UserError, match=r"lost the connection .* receiving m\.gguf.*again"):
        OllamaServer(server.address, "0").upload(file, "sha256:0", lambda sent: None)


BROKEN = {
    "drop": DROP,
    "an error without a word": Reply(500),
    "no gzip": Reply(body=b"no gzip", headers={"Content-Encoding": "gzip"}),
    "short": Reply(headers={"Content-Length": "7", "Connection": "close"}),
}


@pytest.mark.parametrize("name", [*REQUESTS, "generate"])
@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
def test_a_broken_reply_is_one_sentence(serve, name, reply):
    server = serve(lambda asked: reply)
    request = REQUESTS.get(name) or (lambda server: server.generate(model="m", prompt="p"))
    with pytest.raises(UserError) as refused:
        request(OllamaServer(server.address, "0"))
    assert len(refused.value.problems) == 1


def test_questions_that_wait_are_ended_and_later_ones_are_answered(ollama_server, ollama):
    ollama.make("m", "one")
    ollama.instead["chat"] = SILENCE
    server = OllamaServer(ollama_server.address, "0")
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(server.chat, model="m", messages=[]) for _ in range(3)]
        while sum(asked.path == "/api/chat" for asked in ollama_server.asked) < 3:
            time.sleep(0.01)
        server.abort()
        for each in waiting:
            with pytest.raises(UserError, match="lost the connection"):
                each.result(30)
    # The stand-in sees that they are gone, while the process lives on.
    assert ollama_server.left.wait(30)
    del ollama.instead["chat"]
    assert server.chat(model="m", messages=[])["done_reason"] == "stop"


def test_an_addresss_password_is_in_no_sentence():
    server = OllamaServer("http://me:secret@127.0.0.1:9", "0")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9") as refused:
        server.models()
    assert "secret" not in str(refused.value)


def test_neither_a_proxy_nor_a_netrc_is_used_for_this_machine(serve, monkeypatch, tmp_path):
    proxy = serve(lambda asked: Reply(body=b"{}"))
    server = serve(lambda asked: says({"version": "0.34.1", "models": []}))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.address)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("OLLAMA_HOST", server.address)
    assert server_version() == "0.34.1"
    OllamaServer(server.address, "0.34.1").models()
    assert proxy.asked == []
    assert [asked.path for asked in server.asked] == ["/api/version", "/api/tags"]
    assert not any("Authorization" in asked.headers for asked in server.asked)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("192.168.1.5", False),
        ("localhost.example.org", False),
        (None, False),
    ],
)
def test_which_hosts_are_this_machine(host, here):
    assert is_loopback(host) is here
