"""llama.cpp's own server with a run's GGUF, where no Ollama is; it runs while it is asked."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from contract.answer_text import answer_text
from contract.child_environment import Purpose, child_environment
from contract.conversation import Message, Tool
from contract.errors import UserError
from contract.json_reading import BadJson, TooDeep, read_reply
from launcher.display import Display
from launcher.pipeline.model_files import ModelFiles
from launcher.project import CACHE, shown
from launcher.runtime.llama_cpp_tools import tools
from launcher.serving.chat_model import Answer, ChatModel, Ended
from launcher.serving.http_session import ServerSession

PROGRAM = "llama-server"
_PATIENCE_S = 300
_ASKED_EVERY_S = 0.1
_TIME_TO_STOP_S = 10
_SILENCE_S = 1800
_LOG_LINES = 8
_SO_FAR = "Answers so far are kept; run the same command again."
# What it says, under HTTP 500, of an answer that its parser of tool calls cannot read.
_UNREAD_ANSWER = "The model produced output that does not match the expected"


@dataclass(frozen=True)
class LlamaServerModel:
    """A model that llama-server has read, at an address on this machine."""

    address: str
    files: ModelFiles
    by: str = PROGRAM
    _session: ServerSession = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_session", ServerSession(self.address))

    @property
    def name(self) -> str:
        """See `ChatModel.name`."""
        return self.files.name

    @property
    def digest(self) -> str:
        """See `ChatModel.digest`."""
        return self.files.digest

    def ask(
        self, messages: Sequence[Message], max_new_tokens: int, tools: Sequence[Tool] = ()
    ) -> Answer:
        """See `ChatModel.ask`. The GGUF's own chat template writes the conversation."""
        asked = list(messages)
        if self.files.serving.system and asked[0]["role"] != "system":
            asked.insert(0, {"role": "system", "content": self.files.serving.system})
        request = {
            "messages": [_as_openai_writes(message) for message in asked],
            **({"tools": list(tools)} if tools else {}),
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "seed": 0,
            "repeat_penalty": 1,
            "stop": self.files.serving.parameters.get("stop", []),
        }
        try:
            answer = self._session.post(
                f"{self.address}/v1/chat/completions", json=request, timeout=_SILENCE_S
            )
            if not answer.ok and _UNREAD_ANSWER in answer.text:
                # The model's fault and not the question's: it is scored by what it wrote.
                return Answer(answer_text({"content": answer.text}), "stop")
            answer.raise_for_status()
            said = read_reply(answer.content)
        except TooDeep:
            return Answer(answer_text({"content": answer.text}), "stop")
        except (requests.RequestException, BadJson) as error:
            response = getattr(error, "response", None)
            reason = response.text.strip() if response is not None else str(error)
            raise UserError.one(
                PROGRAM,
                f"returned no answer: {reason[:200]}",
                f"Log: {shown(_log())}. {_SO_FAR}",
            ) from error
        choice = _choice(said)
        ended: Ended = "length" if choice.get("finish_reason") == "length" else "stop"
        return Answer(answer_text(choice["message"]), ended)

    def abort(self) -> None:
        """See `ChatModel.abort`."""
        self._session.abort()


def _choice(said: Any) -> dict[str, Any]:
    """The one answer of a reply.

    Raises:
        UserError: the reply is no answer.
    """
    choices = said.get("choices") if isinstance(said, dict) else None
    if isinstance(choices, list) and len(choices) == 1 and isinstance(choices[0], dict):
        choice: dict[str, Any] = choices[0]
        if isinstance(choice.get("message"), dict):
            return choice
    raise UserError.one(PROGRAM, "returned no answer: its reply has another form", _SO_FAR)


def _as_openai_writes(message: Message) -> dict[str, Any]:
    """The message with the arguments of calls as a JSON text."""
    written: dict[str, Any] = {**message}
    if "tool_calls" in message:
        written["tool_calls"] = [
            {
                **call,
                "function": {
                    "name": call["function"]["name"],
                    "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                },
            }
            for call in message["tool_calls"]
        ]
    return written


@contextmanager
def llama_server(files: ModelFiles, parallel: int, display: Display) -> Iterator[ChatModel]:
    """The server with the model of these files, while the block lasts.

    Args:
        parallel: how many are answered at once; each has the whole context.

    Raises:
        UserError: it ends by itself, or is silent.
    """
    program = tools(display) / PROGRAM
    port = _free_port()
    serving = files.serving
    context = int(str(serving.parameters["num_ctx"]))
    command = [str(program), "--model", str(files.folder / serving.gguf), "--jinja", "--no-webui"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--parallel", str(parallel), "--ctx-size", str(context * parallel)]
    if serving.adapter is not None:
        command += ["--lora", str(files.folder / serving.adapter)]
    _log().parent.mkdir(parents=True, exist_ok=True)
    with _log().open("w") as log:
        process = subprocess.Popen(
            command,
            env=child_environment(Purpose.LLAMA_CPP),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A Ctrl-C in the terminal reaches us alone.
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        with display.working(PROGRAM, f"loading {files.name}"):
            _wait(process, address)
        yield LlamaServerModel(address, files)
    finally:
        process.terminate()
        try:
            process.wait(_TIME_TO_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    session = ServerSession(address)
    while True:
        try:
            if session.get(f"{address}/health", timeout=1).ok:
                return
        except requests.RequestException:
            pass
        if process.poll() is not None:
            tail = "\n    ".join(_log().read_text(errors="replace").splitlines()[-_LOG_LINES:])
            raise UserError.one(
                PROGRAM,
                f"exited unexpectedly (exit code {process.returncode})",
                f"Last lines of its log:\n    {tail}",
            )
        if time.monotonic() > deadline:
            raise UserError.one(
                PROGRAM, f"did not respond within {_PATIENCE_S} s", f"Log: {shown(_log())}."
            )
        time.sleep(_ASKED_EVERY_S)


def _log() -> Path:
    return CACHE / "logs" / f"{PROGRAM}.log"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
