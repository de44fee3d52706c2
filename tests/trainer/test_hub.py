"""The hub's client fetches one pinned commit and explains what it cannot have.

No hub can be reached where these tests run: a stand-in on loopback answers the few questions
that the real client asks, out of the smoke base's own files.
"""

import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.conftest import invoke
from trainer.contract.digest import digest_of_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    folder: Path
    files: tuple[str, ...]
    asked: list[tuple[str, str | None]]

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
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def send_error_code(self, code, status):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


@contextmanager
def hub(folder, files):
    handler = type("ThisHub", (Hub,), {"folder": folder, "files": tuple(files), "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler.asked
        finally:
            server.shutdown()


def fetch(project, endpoint, repository="us/tiny", **more):
    """The data report is the shortest way through the launcher to a fetched base."""
    return invoke(
        project,
        *("data", "--profile", "smoke", "--data", "data/evaluation/smoke.jsonl", "--quiet"),
        *("--set", f"model_to_fine_tune={repository}"),
        HF_ENDPOINT=endpoint,
        **more,
    )


def test_a_base_is_fetched_once_at_its_commit_and_the_token_stays_secret(smoke_run):
    files = sorted(path.name for path in smoke_run.base.iterdir())
    with hub(smoke_run.base, files) as (endpoint, asked):
        done = fetch(smoke_run.project, endpoint, HF_TOKEN="hf_secret_for_this_test")
    assert done.returncode == 0, done.stderr
    folder = smoke_run.project / "data" / "cache" / "bases" / "us--tiny@first-fetched"
    record = json.loads((folder / "base.json").read_text())
    assert record["revision"] == COMMIT
    assert record["files"] == {name: digest_of_file(smoke_run.base / name) for name in files}
    assert {token for _, token in asked} == {"Bearer hf_secret_for_this_test"}
    for path in (smoke_run.project / "data").rglob("*"):
        if path.is_file() and "environments" not in path.parts:
            assert b"hf_secret_for_this_test" not in path.read_bytes(), path
    # The hub is gone now, and nobody misses it.
    again = fetch(smoke_run.project, endpoint)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("repository", "files", "said"),
    [
        ("us/absent", ["config.json"], "is not on the hub, or not for you"),
        ("us/tiny-without-weights", ["config.json"], "holds no safetensors weights"),
    ],
)
def test_what_the_hub_cannot_give_is_said(smoke_run, repository, files, said):
    with hub(smoke_run.base, files) as (endpoint, _):
        done = fetch(smoke_run.project, endpoint, repository)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_is_a_sentence(smoke_run):
    done = fetch(smoke_run.project, "http://127.0.0.1:9", "us/unreachable")
    assert done.returncode == 2, done.stderr
    assert "cannot be fetched" in done.stderr
    assert "Traceback" not in done.stderr
