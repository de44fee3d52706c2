"""Ask llama-server how it writes conversations with a chat template, without the model.

It wants a model to start; it gets one of zeros, whose vocabulary is single bytes and the two tokens
that templates write by name. Nothing but the template decides the text.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.conversation import Message, Tool
from trainer.llama_server import LlamaServer, llama_server

_WIDTH = 32
_CONTEXT = 64


@dataclass(frozen=True)
class TemplateServer:
    """A llama-server that has a chat template."""

    server: LlamaServer

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str:
        """The text that it would have a model continue.

        Raises:
            ServerFailed: it refuses the conversation.
        """
        request: dict[str, Any] = {"messages": [_for_api(message) for message in messages]}
        if tools:
            request["tools"] = list(tools)
        return str(self.server.post("/apply-template", request)["prompt"])


@contextmanager
def template_server(
    tools: Path, template: str, *, bos: str | None, eos: str | None
) -> Iterator[TemplateServer]:
    """A server with this template, while the block lasts.

    Args:
        tools: the folder of llama.cpp's compiled programs.
        bos, eos: what the template finds under these names.

    Raises:
        ServerFailed: llama.cpp cannot read the template.
    """
    with tempfile.TemporaryDirectory() as scratch:
        gguf = Path(scratch) / "template.gguf"
        _write_model(gguf, template, bos=bos, eos=eos)
        arguments = ["--jinja", "--parallel", "1", "--ctx-size", str(_CONTEXT), "--threads", "1"]
        with llama_server(tools, gguf, arguments) as server:
            yield TemplateServer(server)


def _for_api(message: Message) -> dict[str, Any]:
    """The message as clients send it: the arguments of a call are a JSON text there."""
    if "tool_calls" not in message:
        return dict(message)
    calls = [
        {
            **call,
            "function": {
                "name": call["function"]["name"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _write_model(path: Path, template: str, *, bos: str | None, eos: str | None) -> None:
    import numpy as np
    from gguf import GGUFWriter, TokenType

    writer = GGUFWriter(path, "llama")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [TokenType.UNKNOWN, *[TokenType.BYTE] * 256]
    named = [token for token in dict.fromkeys((bos, eos)) if token and token not in tokens]
    tokens += named
    types += [TokenType.CONTROL] * len(named)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    if bos:
        writer.add_bos_token_id(tokens.index(bos))
    if eos:
        writer.add_eos_token_id(tokens.index(eos))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(template)
    shapes = {
        "token_embd": (len(tokens), _WIDTH),
        "output": (len(tokens), _WIDTH),
        "output_norm": (_WIDTH,),
        "blk.0.attn_norm": (_WIDTH,),
        "blk.0.ffn_norm": (_WIDTH,),
    }
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        shapes[f"blk.0.{name}"] = (_WIDTH, _WIDTH)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
