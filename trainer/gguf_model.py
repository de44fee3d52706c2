"""Ask a GGUF file itself: for greedy answers, and for its next-token distributions.

llama.cpp's own server reads it, as any server of today does: mapped, with every architecture and
every scale that the format knows, whatever the type of its weights. The prompts are token ids, so
nothing is rendered or tokenized on the way. (`llama-perplexity --kl-divergence` takes a text,
reads its special tokens as plain letters, and judges the second half of each piece of it: it cannot
be asked about answers.)

A machine without the compiled tools makes the smoke run and the demo all the same: transformers
unpacks those models' files, which are small and of a family that it reads.
"""

from __future__ import annotations

import gc
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
from trainer.llama_server import PROGRAM, LlamaServer, ServerFailed, llama_server, threads
from trainer.rendering.template_server import TemplateServer

OnProgress = Callable[[int, int], None]
# Of one distribution: the rest is one outcome.
_TOP = 256
# Added to a logit: more than any model has.
_FORCED = 1e6


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
        # Prompts are token ids: a template that it cannot read must not end it.
        arguments = ["--chat-template", "chatml", *_arguments(context=context, adapter=adapter)]
        try:
            with llama_server(tools, gguf, arguments) as server:
                yield _Served(gguf, server)
        except ServerFailed as error:
            raise _failed(gguf, error) from error


def rendered(
    gguf: Path,
    conversations: Sequence[tuple[Sequence[Message], Sequence[Tool]]],
    *,
    tools: Path,
) -> list[str]:
    """The prompts that llama.cpp makes of conversations, by the template that the file holds.

    A conversation that it cannot write gives its message in brackets.
    """
    texts: list[str] = []
    try:
        with llama_server(tools, gguf, ["--jinja", *_arguments(context=64)]) as server:
            writer = TemplateServer(server)
            for messages, given in conversations:
                try:
                    texts.append(writer.prompt(messages, given))
                except ServerFailed as error:
                    texts.append(f"[{error}]")
    except ServerFailed as error:
        # It ends where it cannot read the template, and has read the file before.
        texts += [f"[{error}]"] * (len(conversations) - len(texts))
    return texts


@dataclass(frozen=True)
class _Served:
    gguf: Path
    server: LlamaServer
    by: str = PROGRAM

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
            # It keeps what it has read, so that each question costs one token more. What it then
            # says is made to be the row's end, and not a part of a letter, of which it tells
            # nothing; the probabilities are those before that.
            said = self._ask(
                ids[: position + 1], n_predict=1, n_probs=_TOP, logit_bias=[[ids[-1], _FORCED]]
            )
            found.append(said["completion_probabilities"][0]["top_logprobs"])
        return TopTokens(
            torch.tensor([[entry["id"] for entry in line] for line in found]),
            torch.tensor([[entry["logprob"] for entry in line] for line in found]),
        )

    def _ask(self, prompt: Sequence[int], **more: Any) -> dict[str, Any]:
        request = {"prompt": list(prompt), "temperature": 0, "cache_prompt": True, **more}
        try:
            return self.server.post("/completion", request)
        except ServerFailed as error:
            raise _failed(self.gguf, error) from error


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


def _arguments(*, context: int, adapter: Path | None = None) -> list[str]:
    arguments = ["--parallel", "1", "--ctx-size", str(context), "--fit", "off"]
    # What a server keeps of the past in 16 bits is kept whole here: the file is what is judged.
    arguments += ["--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32"]
    arguments += ["--threads", str(threads())]
    return arguments + (["--lora", str(adapter)] if adapter is not None else [])


def _failed(gguf: Path, error: ServerFailed) -> UserError:
    return UserError.one(
        f"gguf/{gguf.name}",
        f"llama.cpp's {PROGRAM} {error}",
        "Its output is in the stage's log. If it was killed, free some memory and run the same "
        "command again.",
    )
