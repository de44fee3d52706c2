"""llama.cpp's own server inside a stage: it runs while a block lasts, on loopback alone."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.child_environment import Purpose, child_environment

PROGRAM = "llama-server"
# A file of 70 GB from a slow disk.
_PATIENCE_S = 1800
_ASKED_EVERY_S = 0.01
_TIME_TO_STOP_S = 10


class ServerFailed(Exception):
    """The server ended, or refused; the caller knows what it was asked, and why."""


@dataclass(frozen=True)
class LlamaServer:
    """A server that has read a GGUF file."""

    port: int

    def post(self, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            ServerFailed: it ended, or its status is not 200.
        """
        # http.client knows of no proxy.
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            body = json.dumps(request)
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise ServerFailed(f"ended while it was asked ({error})") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise ServerFailed(_message(said))
        found: dict[str, Any] = json.loads(said)
        return found


@contextmanager
def llama_server(tools: Path, gguf: Path, arguments: Sequence[str]) -> Iterator[LlamaServer]:
    """The server with this file, while the block lasts.

    Args:
        tools: the folder of llama.cpp's compiled programs.
        arguments: more of its flags.

    Raises:
        ServerFailed: it cannot read the file, or is silent.
    """
    port = _free_port()
    command = [str(tools / PROGRAM), "--model", str(gguf), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--offline", "--no-warmup", "--no-ui", "--cache-ram", "0"]
    command += ["--log-verbosity", "2", *arguments]
    process = subprocess.Popen(
        command,
        env=child_environment(Purpose.LLAMA_CPP),
        stdin=subprocess.DEVNULL,
        # Standard output is the stage's events'.
        stdout=sys.stderr.fileno(),
        stderr=sys.stderr.fileno(),
    )
    try:
        _wait(process, port)
        yield LlamaServer(port)
    finally:
        process.terminate()
        try:
            process.wait(_TIME_TO_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def threads() -> int:
    """How many threads it is given: they wait for each other by spinning, and more of them than
    cores are free take many times as long as one.
    """
    return max(1, (os.cpu_count() or 1) // 2)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not _is_ready(port):
        if process.poll() is not None:
            raise ServerFailed(f"cannot read it (exit code {process.returncode})")
        if time.monotonic() > deadline:
            raise ServerFailed(f"did not read it within {_PATIENCE_S} s")
        time.sleep(_ASKED_EVERY_S)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _message(said: str) -> str:
    try:
        return str(json.loads(said)["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return said[:300]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
