"""The story of `convert`: llama.cpp's converter writes the GGUF, and it is read back.

Read back means: transformers loads the file, and its greedy answers must be the merged model's,
token for token. A converter that lost a scale, a permutation or a rope base writes a file that
loads and talks; only comparing what it says shows it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trainer.contract import places as names
from trainer.contract.errors import UserError
from trainer.contract.places import Places
from trainer.contract.recipe import ConvertSection, Recipe
from trainer.contract.whole_file import write_whole
from trainer.convert.header import check_header
from trainer.convert.llama_cpp import write_gguf
from trainer.entrypoint import Reporter
from trainer.generation import greedy
from trainer.prepared import read_prepared

_PROMPTS = 10
_ANSWER_TOKENS = 48
# The type that holds the merged numbers without rounding them.
_EXACT_TYPE = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def convert(places: Places, reporter: Reporter) -> None:
    """Make `gguf/model-<type>.gguf` from `merged/`, and read one of them back.

    Raises:
        UserError: llama.cpp does not know the architecture, or the file read back says
            something else than the merged model.
    """
    recipe = Recipe.read(places.run / names.RECIPE).section(ConvertSection)
    merged = places.run / names.MERGED
    shutil.rmtree(places.run / names.GGUF, ignore_errors=True)
    (places.run / names.GGUF).mkdir()
    dtype = json.loads((merged / "config.json").read_text())["dtype"]
    types = list(dict.fromkeys(["f16", *recipe.quantizations]))
    for number, quantization in enumerate(types):
        reporter.progress("converting", number, len(types), "files")
        write_gguf(
            places.need("llama_cpp"),
            merged,
            places.run / names.gguf_name(quantization),
            quantization,
            recipe.output_model_name,
        )
    reporter.progress("converting", len(types), len(types), "files")

    exact = _EXACT_TYPE.get(dtype, "f16")
    read_back = exact if exact in types else "f16"
    prompts = _prompts(places.run)
    answers = _answers(merged, None, merged, prompts, reporter)
    gguf = places.run / names.gguf_name(read_back)
    check_header(gguf, merged)
    differing = _differing(answers, _answers(gguf.parent, gguf.name, merged, prompts, reporter))
    if differing:
        raise UserError.one(
            f"{names.GGUF}/{gguf.name}",
            f"read back, it answers {len(differing)} of {len(prompts)} held-out prompts "
            f"otherwise than the merged model (the first: prompt {differing[0] + 1})",
            f"Add {exact} to quantizations, which holds the merged numbers unrounded; if that "
            "differs as well, the converter does not fit this architecture.",
        )
    write_whole(
        places.run / names.READ_BACK,
        json.dumps({"file": gguf.name, "prompts": len(prompts), "equal": len(prompts)}) + "\n",
    )
    reporter.result({"types": types, "read_back": read_back, "prompts": len(prompts)})


def _prompts(run: Path) -> list[list[int]]:
    rows = read_prepared(run / names.PREPARED_HELD_OUT)
    if not rows:
        rows = read_prepared(run / names.PREPARED_TRAIN)
    return [row["prompt_ids"] for row in rows[:_PROMPTS]]


def _answers(
    folder: Path,
    gguf_file: str | None,
    tokenizer_folder: Path,
    prompts: Sequence[Sequence[int]],
    reporter: Reporter,
) -> list[list[int]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    who = "GGUF" if gguf_file else "merged model"
    reporter.progress(f"reading back, {who}", 0, len(prompts), "prompts")
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=gguf_file, dtype=torch.float32, local_files_only=True
    )
    return greedy(
        model.eval(),
        AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True),
        prompts,
        max_new_tokens=_ANSWER_TOKENS,
        on_batch=lambda done, total: reporter.progress(
            f"reading back, {who}", done, total, "prompts"
        ),
    )


def _differing(one: Sequence[list[int]], other: Sequence[list[int]]) -> list[int]:
    return [index for index, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
