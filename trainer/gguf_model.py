"""Ask a GGUF file itself: for greedy answers, and for its next-token distributions.

llama.cpp's own server reads it, as any server of today does: mapped, with every architecture and
every scale that the format knows, whatever the type of its weights. The prompts are token ids, so
nothing is rendered or tokenized on the way. (`llama-perplexity --kl-divergence` takes a text,
reads its special tokens as plain letters, and judges the second half of each piece of it: it cannot
be asked about answers.)

A machine without the compiled tools makes the smoke run all the same: transformers unpacks that
model's file, which is small and of a family that it reads.
"""

from __future__ import annotations

import gc
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from contract.conversation import Message, Tool
from contract.errors import UserError
from trainer.distributions import TopTokens, next_token_logprobs
from trainer.generation import greedy

OnProgress = Callable[[int, int], None]
# Of one distribution: the rest is one outcome.
_TOP = 256
_PROGRAM = "llama-server"
# A file of 70 GB from a slow disk.
_PATIENCE_S = 1800
_ASKED_EVERY_S = 0.02
_TIME_TO_STOP_S = 10


class GgufModel(Protocol):
    """A GGUF file that is asked."""

    @property
    def by(self) -> str:
        """The program that reads the file."""

    def answers(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, on_progress: OnProgress
    ) -> list[list[int]]:
        """The greedy answers, each with the token that ended it unless it was cut off.

        Raises:
            UserError: the program that reads the file ended.
        """

    def top_tokens(self, ids: Sequence[int], positions: Sequence[int]) -> TopTokens:
        """The most likely next tokens after each of the positions, which are in their order.

        Raises:
            UserError: the program that reads the file ended.
        """


@contextmanager
def gguf_model(
    gguf: Path,
    *,
    tools: Path | None,
    ends: Sequence[int],
    context: int,
    adapter: Path | None = None,
) -> Iterator[GgufModel]:
    """The file, while the block lasts.

    Args:
        tools: llama.cpp's compiled programs; without them, transformers reads it.
        ends: the tokens that end an answer, for transformers; llama.cpp has its own.
        context: tokens of the longest row, or of the longest prompt and its answer.
        adapter: the adapter's own GGUF, where it is served with this file; wants `tools`.

    Raises:
        UserError: llama.cpp cannot read the file.
    """
    if tools is None:
        if adapter is not None:
            raise LookupError("an adapter is read by llama.cpp's tools alone")
        yield _Unpacked(gguf, ends)
        gc.collect()
    else:
        with _server(tools / _PROGRAM, gguf, context=context, adapter=adapter) as port:
            yield _Served(gguf, port)


def rendered(
    gguf: Path,
    conversations: Sequence[tuple[Sequence[Message], Sequence[Tool]]],
    *,
    tools: Path,
) -> list[str]:
    """The prompts that llama.cpp makes of conversations, by the template that the file holds.

    A conversation that it cannot write gives its message in brackets.
    """
    texts = []
    try:
        with _server(tools / _PROGRAM, gguf, context=64, own_template=True) as port:
            for messages, given in conversations:
                request = {
                    "messages": [_for_openai(message) for message in messages],
                    **({"tools": list(given)} if given else {}),
                }
                status, said = _post(gguf, port, "/apply-template", request)
                found: dict[str, Any] = json.loads(said)
                if status == http.client.OK:
                    texts.append(str(found["prompt"]))
                else:
                    texts.append(f"[{found['error']['message']}]")
    except UserError as error:
        # It ends where it cannot read the template, and has read the file before.
        texts += [f"[{error.problems[0].what}]"] * (len(conversations) - len(texts))
    return texts


def _for_openai(message: Message) -> dict[str, Any]:
    """A turn as that API has it: the arguments of calls are text."""
    written: dict[str, Any] = dict(message)
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


@dataclass(frozen=True)
class _Served:
    gguf: Path
    port: int
    by: str = _PROGRAM

    def answers(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, on_progress: OnProgress
    ) -> list[list[int]]:
        found = []
        for number, prompt in enumerate(prompts):
            on_progress(number, len(prompts))
            said = self._ask(prompt, n_predict=max_new_tokens, return_tokens=True)
            found.append([int(token) for token in said["tokens"]])
        on_progress(len(prompts), len(prompts))
        return found

    def top_tokens(self, ids: Sequence[int], positions: Sequence[int]) -> TopTokens:
        found: list[list[dict[str, Any]]] = []
        for position in positions:
            # It keeps what it has read, so that each question costs one token more.
            said = self._ask(ids[: position + 1], n_predict=1, n_probs=_TOP)
            found.append(said["completion_probabilities"][0]["top_logprobs"])
        return TopTokens(
            torch.tensor([[entry["id"] for entry in line] for line in found]),
            torch.tensor([[entry["logprob"] for entry in line] for line in found]),
        )

    def _ask(self, prompt: Sequence[int], **more: Any) -> dict[str, Any]:
        request = {"prompt": list(prompt), "temperature": 0, "cache_prompt": True, **more}
        status, said = _post(self.gguf, self.port, "/completion", request)
        if status != http.client.OK:
            raise _ended(self.gguf, f"refused a question: {said.decode(errors='replace')[:200]}")
        found: dict[str, Any] = json.loads(said)
        return found


def _post(gguf: Path, port: int, path: str, request: dict[str, Any]) -> tuple[int, bytes]:
    # http.client knows of no proxy.
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise _ended(gguf, f"ended while it was asked ({error})") from error
    finally:
        connection.close()


class _Unpacked:
    by = "transformers"

    def __init__(self, gguf: Path, ends: Sequence[int]) -> None:
        from transformers import AutoModelForCausalLM

        self._model: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
        ).eval()
        self._ends = list(ends)

    def answers(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, on_progress: OnProgress
    ) -> list[list[int]]:
        found = greedy(
            self._model,
            self._ends,
            prompts,
            max_new_tokens=max_new_tokens,
            on_batch=on_progress,
        )
        return [answer + self._ends[:1] * (len(answer) < max_new_tokens) for answer in found]

    def top_tokens(self, ids: Sequence[int], positions: Sequence[int]) -> TopTokens:
        return TopTokens.of(next_token_logprobs(self._model, ids, positions), _TOP)


@contextmanager
def _server(
    program: Path,
    gguf: Path,
    *,
    context: int,
    adapter: Path | None = None,
    own_template: bool = False,
) -> Iterator[int]:
    port = _free_port()
    arguments = ["--model", str(gguf), "--host", "127.0.0.1", "--port", str(port), "--offline"]
    arguments += ["--parallel", "1", "--ctx-size", str(context), "--fit", "off"]
    # What a server keeps of the past in 16 bits is kept whole here: the file is what is judged.
    arguments += ["--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32"]
    arguments += ["--no-warmup", "--no-ui", "--cache-ram", "0", "--log-verbosity", "2"]
    arguments += ["--threads", str(_threads())]
    # Where prompts are token ids, a template that it cannot read must not end it.
    arguments += ["--jinja"] if own_template else ["--chat-template", "chatml"]
    if adapter is not None:
        arguments += ["--lora", str(adapter)]
    process = subprocess.Popen(
        [str(program), *arguments],
        stdin=subprocess.DEVNULL,
        # Standard output is the stage's events'.
        stdout=sys.stderr.fileno(),
        stderr=sys.stderr.fileno(),
    )
    try:
        _wait(process, port, gguf)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(_TIME_TO_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, gguf: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        if process.poll() is not None:
            raise _ended(gguf, f"cannot read it (exit code {process.returncode})")
        if _is_ready(port):
            return
        if time.monotonic() > deadline:
            raise _ended(gguf, f"did not read it within {_PATIENCE_S} s")
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


def _ended(gguf: Path, what: str) -> UserError:
    return UserError.one(
        f"gguf/{gguf.name}",
        f"llama.cpp's {_PROGRAM} {what}",
        "Its output is in the stage's log. If it was killed, free some memory and run the same "
        "command again.",
    )


def _threads() -> int:
    # Its threads wait for each other by spinning: more of them than cores are free take many
    # times as long as one.
    return max(1, (os.cpu_count() or 1) // 2)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
