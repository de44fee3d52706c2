"""Stage `convert`: llama.cpp's converter writes the GGUF files, and one is read back.

Read back means: transformers loads the file, and its greedy answers must be the merged model's,
token for token. A converter that lost a scale, a permutation or a rope base writes a file that
loads and answers; only comparing the answers shows it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contract import paths
from contract.chat_format import ChatFormat
from contract.errors import UserError
from contract.paths import StagePaths
from contract.recipe import ConvertSection, Recipe
from contract.results.convert import ConvertResult, ReadBack
from trainer.adapter import Adapter
from trainer.convert.adapter import refusal, write_adapter
from trainer.convert.header import check_header
from trainer.convert.llama_cpp import write_gguf
from trainer.entrypoint import Reporter
from trainer.generation import greedy
from trainer.loading import load_fp32
from trainer.prepared import read_prepared

_PROMPTS = 10
_ANSWER_TOKENS = 48
# The GGUF type that holds the merged weights without loss.
_LOSSLESS_TYPE = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def convert(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `gguf/model-<type>.gguf` from `merged/`, read one of them back, and make the adapter's.

    Where the adapter is to be served with its base, the base's own files are made as well.

    Raises:
        UserError: llama.cpp does not know the architecture, the file that was read back answers
            otherwise than the merged model, or an adapter that is to be served cannot be
            converted.
    """
    recipe = Recipe.read(stage_paths.run / paths.RECIPE).section(ConvertSection)
    merged = stage_paths.run / paths.MERGED
    (stage_paths.run / paths.GGUF).mkdir(exist_ok=True)
    types = recipe.converter_types()
    files = [(merged, paths.gguf_name(kind), kind) for kind in types]
    with base_as_merged(stage_paths.require("base"), merged) as base:
        if recipe.serving == "adapter":
            served = {"f16", *({recipe.quantizations[0]} & set(types))}
            files += [(base, paths.base_gguf_name(kind), kind) for kind in sorted(served)]
        for number, (model, gguf, kind) in enumerate(files):
            reporter.progress("converting", done=number, total=len(files), unit="files")
            write_gguf(
                stage_paths.require("llama_cpp"),
                model,
                stage_paths.run / gguf,
                quantization=kind,
                model_name=recipe.output_model_name,
            )
        reporter.progress("converting", done=len(files), total=len(files), unit="files")
        adapter_made = _convert_adapter(stage_paths, base, recipe, reporter=reporter)
    read_back = _read_back(stage_paths.run, types, reporter)
    read_back.write(stage_paths.run / paths.READ_BACK)
    reporter.result(ConvertResult(types=types, read_back=read_back, adapter=adapter_made))


def _convert_adapter(
    stage_paths: StagePaths, base: Path, recipe: ConvertSection, *, reporter: Reporter
) -> bool:
    adapter = Adapter.read(stage_paths.run / paths.ADAPTER)
    if why := refusal(adapter):
        if recipe.serving == "adapter":
            raise UserError.one("serving", f"adapter is not possible: {why}", "Use merged.")
        reporter.note(f"skipping the adapter GGUF: {why}")
        return False
    write_adapter(
        stage_paths.require("llama_cpp"),
        base=base,
        adapter=adapter,
        gguf=stage_paths.run / paths.ADAPTER_GGUF,
    )
    return True


@contextmanager
def base_as_merged(base: Path, merged: Path) -> Iterator[Path]:
    """A folder with the base's weights and everything else from the merged model."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "base"
        folder.mkdir()
        for file in merged.iterdir():
            own = base / file.name
            weights = own.exists() and file.suffix == ".safetensors"
            (folder / file.name).symlink_to((own if weights else file).absolute())
        yield folder


def _read_back(run: Path, types: Sequence[str], reporter: Reporter) -> ReadBack:
    merged = run / paths.MERGED
    dtype = json.loads((merged / "config.json").read_text())["dtype"]
    lossless = _LOSSLESS_TYPE.get(dtype, "f16")
    kind = lossless if lossless in types else "f16"
    prompts = _prompts(run)
    ends = ChatFormat.read(run / paths.CHAT_FORMAT).end_ids
    answers = _answers(merged, prompts, ends=ends, reporter=reporter)
    gguf = run / paths.gguf_name(kind)
    check_header(gguf, merged)
    differing = _differing(
        answers, _answers(merged, prompts, ends=ends, gguf=gguf, reporter=reporter)
    )
    if differing:
        raise UserError.one(
            f"{paths.GGUF}/{gguf.name}",
            f"read back, its answers to {len(differing)} of {len(prompts)} held-out prompts "
            f"differ from the merged model's (the first: prompt {differing[0] + 1})",
            f"Add {lossless} to quantizations, which holds the merged weights without loss; if "
            "that differs as well, the converter does not support this architecture.",
        )
    return ReadBack(file=gguf.name, prompts=len(prompts), equal=len(prompts))


def _prompts(run: Path) -> list[list[int]]:
    rows = read_prepared(run / paths.PREPARED_HELD_OUT)
    if not rows:
        rows = read_prepared(run / paths.PREPARED_TRAIN)
    return [row["prompt_ids"] for row in rows[:_PROMPTS]]


def _answers(
    merged: Path,
    prompts: Sequence[Sequence[int]],
    *,
    ends: Sequence[int],
    gguf: Path | None = None,
    reporter: Reporter,
) -> list[list[int]]:
    """The greedy answers of the merged model, or of the GGUF where one is given."""
    on_batch = reporter.progress_callback(
        f"reading back, {'merged model' if gguf is None else 'GGUF'}", "prompts"
    )
    on_batch(0, len(prompts))
    return greedy(
        load_fp32(gguf or merged),
        ends,
        prompts,
        max_new_tokens=_ANSWER_TOKENS,
        on_batch=on_batch,
    )


def _differing(one: Sequence[list[int]], other: Sequence[list[int]]) -> list[int]:
    return [index for index, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
