"""A tiny base with the real Qwen2 tokenizer (151,936 tokens), made of what llama.cpp's package has.

Its chat template has the form of Qwen2.5's, in our words: a system turn of its own where the
conversation has none.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.runtime.llama_cpp_sources import download

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_VOCABULARY = "vendor/llama.cpp/models/ggml-vocab-qwen2.gguf"
TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(scratch: Path, template: str = TEMPLATE) -> PreTrainedTokenizerBase:
    """The real vocabulary, with turns that end by `<|im_end|>`."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(scratch, gguf_file=_vocabulary(scratch).name)
    found.chat_template = template
    found.eos_token = "<|im_end|>"
    found.pad_token = "<|endoftext|>"
    return found


def write_base(folder: Path, scratch: Path, template: str = TEMPLATE, width: int = 256) -> Path:
    """Write a bf16 Qwen2 of two layers with tied embeddings; the weights are a seed's."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    its_tokenizer = tokenizer(scratch, template)
    its_tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
        eos_token_id=its_tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    # Tied and frozen, they must be able to tell one token from 151,935 others.
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.1)
    model = model.to(torch.bfloat16)
    model.generation_config.eos_token_id = [
        its_tokenizer.eos_token_id,
        its_tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    ]
    model.save_pretrained(folder)
    return folder


def write_rows(path: Path, number: int = 24) -> Path:
    """A dataset whose every answer is one short word: learned in a minute on any base."""
    things = ("l'été", "une forêt", "le café", "un nœud", "the cat", "🎯", "日本", "un e-mail")
    with path.open("w", encoding="utf-8") as file:
        for row in range(number):
            question = f"Réponds au numéro {row} : {things[row % len(things)]} ?"
            file.write(json.dumps({"instruction": question, "output": "oui"}) + "\n")
    return path


def _vocabulary(scratch: Path) -> Path:
    place = scratch / Path(_VOCABULARY).name
    if not place.exists():
        download(scratch)
        with tarfile.open(next(scratch.glob("llama_cpp_python-*.tar.gz"))) as tar:
            member = next(entry for entry in tar if entry.name.endswith(_VOCABULARY))
            extracted = tar.extractfile(member)
            assert extracted is not None
            place.write_bytes(extracted.read())
    return place
