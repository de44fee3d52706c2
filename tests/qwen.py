"""The real Qwen2 tokenizer (151,936 tokens), made of what llama.cpp's package has.

Its chat template has the form of Qwen2.5's, in our words: a system turn of its own where the
conversation has none.
"""

from __future__ import annotations

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
