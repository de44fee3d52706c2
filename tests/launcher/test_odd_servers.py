"""What answers in a server's place: it is named, and nothing is sent elsewhere.

The servers are stand-ins on loopback, since no real one does this when it is asked to.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from contract.errors import UserError
from contract.serving import Serving
from launcher.pipeline.model_files import ModelFiles
from launcher.serving.http_session import is_loopback
from launcher.serving.ollama_server import OllamaServer, server_version


class _Handler(BaseHTTPRequestHandler):
    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        status, headers, body = self.server.reply
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def serve():
    """Starts servers that answer everything alike, and keep what they were asked."""
    started = []

    def start(body=b"", status=200, **headers):
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.asked, server.reply = [], (status, headers, body)
        server.address = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


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
    elsewhere = serve(b"{}")
    server = serve(status=status, Location=f"{elsewhere.address}/api/other")
    with pytest.raises(UserError, match=r"redirects to .*Set OLLAMA_HOST to the server's own"):
        REQUESTS[name](OllamaServer(server.address, "0"))
    assert elsewhere.asked == []


@pytest.mark.parametrize("name", ["models", "show", "chat", "create"])
@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"[]", b"\xff"])
def test_a_reply_that_is_none_is_a_sentence(serve, name, body):
    server = serve(body)
    with pytest.raises(UserError, match=r"its reply is not (JSON|a JSON object)"):
        REQUESTS[name](OllamaServer(server.address, "0"))


@pytest.mark.parametrize("name", ["models", "show", "chat", "create"])
def test_an_error_under_http_200_is_an_error(serve, name):
    server = serve(json.dumps({"error": "the disk is gone"}).encode())
    with pytest.raises(UserError, match="the disk is gone"):
        REQUESTS[name](OllamaServer(server.address, "0"))


def test_neither_a_proxy_nor_a_netrc_is_used_for_this_machine(serve, monkeypatch, tmp_path):
    proxy, server = serve(b"{}"), serve(b'{"version": "0.34.1", "models": []}')
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
    assert [path for _, path, _ in server.asked] == ["/api/version", "/api/tags"]
    assert not any("Authorization" in headers for _, _, headers in server.asked)


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
