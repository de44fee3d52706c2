"""A stand-in for the model hub, on this machine: none can be reached where tests run.

It answers the few questions that the real client asks, out of a folder's own files.
"""

from __future__ import annotations

import hashlib
import json
import socket
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    folder: Path
    files: tuple[str, ...]
    asked: list[tuple[str, str | None]]
    # Called with each file's name and what is to be sent of it; says how much of it is sent, before
    # the connection is dropped, or None for all of it.
    cut = staticmethod(lambda name, content: None)

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.asked.append((self.path, self.headers.get("Authorization")))
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/models/us/tiny/tree/{COMMIT}"):
            self.send(self.tree(), body)
        elif path.rstrip("/") == "/api/models/us/tiny-without-weights":
            self.send({"id": "us/tiny-without-weights", "sha": COMMIT, "siblings": []}, body)
        elif path.startswith("/api/models/us/tiny"):
            self.send({"id": "us/tiny", "sha": COMMIT, "siblings": self.siblings()}, body)
        elif path.startswith("/api/models/"):
            self.send_error_code("RepoNotFound", 404)
        elif path.startswith(f"/us/tiny/resolve/{COMMIT}/"):
            self.send_file(path.rpartition("/")[2], body)
        else:
            self.send_error_code("EntryNotFound", 404)

    def siblings(self):
        return [
            {"rfilename": name, "size": (self.folder / name).stat().st_size} for name in self.files
        ]

    def tree(self):
        return [
            {
                "type": "file",
                "path": name,
                "size": (self.folder / name).stat().st_size,
                "oid": hashlib.sha1((self.folder / name).read_bytes()).hexdigest(),
            }
            for name in self.files
        ]

    def send(self, value, body):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def send_file(self, name, body):
        content = (self.folder / name).read_bytes()
        etag, size = hashlib.sha1(content).hexdigest(), len(content)
        # A client that was cut off asks for the rest.
        if (wanted := self.headers.get("Range")) is not None:
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
            content = content[first:]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if not body:
            return
        sent = self.cut(name, content)
        with suppress(OSError):
            self.wfile.write(content[:sent])
            if sent is not None:
                self.connection.shutdown(socket.SHUT_RDWR)

    def send_error_code(self, code, status):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


@contextmanager
def hub(folder, files, address="127.0.0.1", cut=Hub.cut):
    """The hub's address, and a list of what it was asked: path and authorization.

    Args:
        cut: see `Hub.cut`.
    """
    known = {"folder": folder, "files": tuple(files), "asked": [], "cut": staticmethod(cut)}
    handler = type("ThisHub", (Hub,), known)
    with ThreadingHTTPServer((address, 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{address}:{server.server_port}", handler.asked
        finally:
            server.shutdown()
