"""A server on loopback that answers what a test tells it to, or nothing: real HTTP, real sockets.

`StandIn` knows no API. `Ollama` keeps names, digests and blobs as Ollama does, and does what
no real one does when it is asked: it falls silent, drops a connection in the middle of an upload,
or has a stranger take a name at the worst moment.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from types import MappingProxyType
from typing import Any, NamedTuple

from launcher.serving.ollama_names import full_name


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """What its body says."""
        return json.loads(self.body or b"null")


class Reply(NamedTuple):
    """What is answered."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})


def says(value: Any, status: int = 200) -> Reply:
    """A value as JSON."""
    return Reply(status, json.dumps(value).encode())


# In place of a reply.
SILENCE, DROP = "silence", "drop"
Answering = Callable[[Asked], "Reply | str"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def answer(self) -> None:
        server, length = self.server, int(self.headers.get("Content-Length") or 0)
        if (taken := server.cut.get(self.path.partition("?")[0])) is not None:
            self.rfile.read(min(taken, length))
            self.drop()
            return
        asked = Asked(self.command, self.path, dict(self.headers), self.rfile.read(length))
        server.asked.append(asked)
        reply = server.reply(asked)
        if reply == SILENCE:
            self.wait()
        elif isinstance(reply, str):
            self.drop()
        else:
            self.send_response(reply.status)
            headers = {"Content-Length": str(len(reply.body)), **reply.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

    do_GET = do_POST = do_DELETE = do_HEAD = answer

    def wait(self) -> None:
        """Say nothing until whoever asked is gone."""
        self.server.silent.set()
        with suppress(OSError):
            self.connection.recv(1)
        self.server.left.set()
        self.close_connection = True

    def drop(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, *_arguments: Any) -> None:
        pass


class StandIn(ThreadingHTTPServer):
    """The server.

    Attributes:
        reply: what is answered to a request.
        asked: every request so far.
        cut: paths at which the connection is dropped after so many bytes of a body.
        silent: set once a request waits for an answer that does not come.
        left: set once whoever waited so is gone.
    """

    daemon_threads = True

    def __init__(self, reply: Answering) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.asked: list[Asked] = []
        self.cut: dict[str, int] = {}
        self.silent, self.left = Event(), Event()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody went away: that is what is tested."""


@contextmanager
def running(server: StandIn) -> Iterator[StandIn]:
    """The server, for as long as the block lasts."""
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Ollama:
    """What an Ollama server holds, and what it is told to do instead of its work.

    Attributes:
        models: the digest of each name.
        shown: what `/api/show` says of a name; of others it says little.
        instead: by the last part of a path (`chat`), what is answered in place of an answer.
        before: by the same, what happens first: somebody else's command.
        questions: what it was asked by `/api/chat`, by the model's name.
    """

    version: str = "0.34.1"
    models: dict[str, str] = field(default_factory=dict)
    shown: dict[str, dict[str, Any]] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)
    instead: dict[str, Reply | str] = field(default_factory=dict)
    before: dict[str, Callable[[Asked], None]] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=Lock)

    def __call__(self, asked: Asked) -> Reply | str:
        """Answer as Ollama does."""
        parts = asked.path.removeprefix("/api/").split("/")
        if parts[0] in self.before:
            self.before[parts[0]](asked)
        if parts[0] in self.instead:
            return self.instead[parts[0]]
        with self.lock:
            reply: Reply = getattr(self, f"_{parts[0]}")(asked, *parts[1:])
            return reply

    def make(self, name: str, what: str) -> None:
        """Have a model, as if somebody had created it."""
        self.models[self._existing(name)] = sha256(what.encode()).hexdigest()

    def _existing(self, name: str) -> str:
        """The name, in the letters of the model that has it already."""
        same = (one for one in self.models if one.casefold() == full_name(name).casefold())
        return next(same, full_name(name))

    def _version(self, _asked: Asked) -> Reply:
        return says({"version": self.version})

    def _tags(self, _asked: Asked) -> Reply:
        listed = [{"name": name, "digest": digest} for name, digest in self.models.items()]
        return says({"models": listed})

    def _blobs(self, asked: Asked, digest: str) -> Reply:
        if asked.method == "HEAD":
            return Reply(200 if digest in self.blobs else 404)
        if digest != f"sha256:{sha256(asked.body).hexdigest()}":
            return says({"error": "digest mismatch"}, 400)
        self.blobs.add(digest)
        return Reply(201)

    def _create(self, asked: Asked) -> Reply:
        request = asked.json
        made = {key: value for key, value in request.items() if key != "model"}
        self.make(request["model"], json.dumps(made, sort_keys=True))
        return says({"status": "success"})

    def _show(self, asked: Asked) -> Reply:
        name = self._existing(asked.json["model"])
        if name not in self.models:
            return says({"error": f"model '{name}' not found"}, 404)
        little = {"modelfile": "", "template": "{{ .Prompt }}", "parameters": ""}
        return says(self.shown.get(name, little))

    def _copy(self, asked: Asked) -> Reply:
        source = self._existing(asked.json["source"])
        if source not in self.models:
            return says({"error": f"model {source!r} not found"}, 404)
        self.models[self._existing(asked.json["destination"])] = self.models[source]
        return Reply()

    def _delete(self, asked: Asked) -> Reply:
        name = self._existing(asked.json["model"])
        return Reply(404 if self.models.pop(name, None) is None else 200)

    def _chat(self, asked: Asked) -> Reply:
        name = self._existing(asked.json["model"])
        self.questions.append(name)
        if name not in self.models:
            return says({"error": f"model '{name}' not found"}, 404)
        message = {"role": "assistant", "content": self.models[name]}
        return says({"message": message, "done_reason": "stop"})

    def _generate(self, asked: Asked) -> Reply:
        said = json.loads(self._chat(asked).body)
        return says({"response": said["message"]["content"], "done_reason": "stop"})
