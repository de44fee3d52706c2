"""The story of `merge`: the adapter's weights are added to the full-precision base's.

Never to the 4-bit ones: rounding them once more is how merged models come to differ from what
was trained. Arithmetic in fp32, the result in the base's own precision.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainer.contract import places as names
from trainer.contract.errors import UserError
from trainer.contract.places import Places
from trainer.contract.whole_file import write_whole
from trainer.entrypoint import Reporter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Copied as they are: a tokenizer that is loaded and saved again can come back as another class.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
)


def merge(places: Places, reporter: Reporter) -> None:
    """Make `merged/`, a Hugging Face folder, from the base and `adapter/`."""
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM

    base = places.need("base")
    folder = places.run / names.MERGED
    shutil.rmtree(folder, ignore_errors=True)
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    if getattr(config, "quantization_config", None):
        raise UserError.one(
            "model_to_fine_tune",
            "the base's own weights are quantized, and an adapter cannot be merged into them",
            "Fine-tune the full-precision model that it was made from.",
        )
    dtype = config.dtype or torch.float32
    reporter.progress("merging", 0, 3, "steps")
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, local_files_only=True
    )
    model = PeftModel.from_pretrained(model, str(places.run / names.ADAPTER))
    reporter.progress("merging", 1, 3, "steps")
    # safe_merge looks for NaN, which a diverged training leaves behind.
    model = model.merge_and_unload(safe_merge=True).to(dtype)
    reporter.progress("merging", 2, 3, "steps")
    model.save_pretrained(folder)
    _copy_tokenizer(base, folder)
    reporter.progress("merging", 3, 3, "steps")
    reporter.result({"dtype": str(dtype).removeprefix("torch.")})


def _copy_tokenizer(base: Path, merged: Path) -> None:
    from transformers import AutoTokenizer

    for name in _TOKENIZER_FILES:
        if (base / name).exists():
            shutil.copyfile(base / name, merged / name)
    path = merged / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "add_bos_token" not in config:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        # Left unsaid, llama.cpp falls back on a default of its own, and the served model reads
        # one token more than the trained one did.
        config["add_bos_token"] = _adds_bos(tokenizer)
        write_whole(path, json.dumps(config, ensure_ascii=False, indent=2) + "\n")


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
