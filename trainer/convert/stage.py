"""Stage `convert`: llama.cpp's converter writes the GGUF files, and one is read back.

Read back means: llama.cpp's server reads the file, its greedy answers must be the merged model's,
token for token, and its next-token distributions must be the same but for rounding. A converter
that lost a scale, a permutation or a rope base writes a file that loads and answers; only comparing
shows it.
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
from trainer.distributions import Divergence, answer_positions, next_token_logprobs
from trainer.entrypoint import Reporter
from trainer.gguf_model import gguf_model
from trainer.judging import judge
from trainer.merged_model import load_merged
from trainer.prepared import PreparedRow, read_prepared

_PROMPTS = 10
_ANSWER_TOKENS = 48
_COMPARED_TOKENS = 256
# Ten times what llama.cpp's arithmetic differs by; a weight that is wrong costs a hundred times
# this.
_MAX_MEAN_KL = 1e-3
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
    (stage_paths.output / paths.GGUF).mkdir(exist_ok=True)
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
                stage_paths.output / gguf,
                quantization=kind,
                model_name=recipe.output_model_name,
            )
        reporter.progress("converting", done=len(files), total=len(files), unit="files")
        adapter_made = _convert_adapter(stage_paths, base, recipe, reporter=reporter)
    read_back = _read_back(stage_paths, types, reporter)
    read_back.write(stage_paths.output / paths.READ_BACK)
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
        gguf=stage_paths.output / paths.ADAPTER_GGUF,
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


def _read_back(stage_paths: StagePaths, types: Sequence[str], reporter: Reporter) -> ReadBack:
    run = stage_paths.run
    merged = run / paths.MERGED
    dtype = json.loads((merged / "config.json").read_text())["dtype"]
    lossless = _LOSSLESS_TYPE.get(dtype, "f16")
    kind = lossless if lossless in types else "f16"
    gguf = stage_paths.output / paths.gguf_name(kind)
    check_header(gguf, merged)
    ends = ChatFormat.read(run / paths.CHAT_FORMAT).end_ids
    rows = _rows(run)
    prompts = [row["prompt_ids"] for row in rows[:_PROMPTS]]
    compared = answer_positions(rows, _COMPARED_TOKENS)
    longest = max(
        *(len(row["input_ids"]) for row, _ in compared), *(len(prompt) for prompt in prompts)
    )
    with gguf_model(
        gguf, tools=stage_paths.tools, ends=ends, context=longest + _ANSWER_TOKENS
    ) as file:
        answers = file.answers(
            prompts, _ANSWER_TOKENS, reporter.progress_callback("reading back, GGUF", "prompts")
        )
        found = [file.top_tokens(row["input_ids"], positions) for row, positions in compared]
    model = load_merged(merged, positions=max(_COMPARED_TOKENS, _ANSWER_TOKENS))
    on_prompt = reporter.progress_callback("reading back, merged model", "prompts")
    judgements = []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        on_prompt(number, len(prompts))
        judgements.append(judge(model, prompt, answer, stops=ends))
    on_prompt(len(prompts), len(prompts))
    divergence = Divergence()
    for (row, positions), tops in zip(compared, found, strict=True):
        divergence.add(next_token_logprobs(model, row["input_ids"], positions), tops)
    agreement = divergence.agreement()
    differing = [number for number, judged in enumerate(judgements) if not judged.right]
    what = ""
    if differing:
        what = (
            f"its answers to {len(differing)} of {len(prompts)} held-out prompts differ from the "
            f"merged model's (the first: prompt {differing[0] + 1})"
        )
    elif agreement.mean_kl > _MAX_MEAN_KL:
        what = (
            f"its predictions are {agreement.mean_kl:.2g} nats per token away from the merged "
            f"model's (at most {_MAX_MEAN_KL:g})"
        )
    if what:
        raise UserError.one(
            f"{paths.GGUF}/{gguf.name}",
            f"read back by {file.by}, {what}",
            f"Add {lossless} to quantizations, which holds the merged weights without loss; if "
            "that differs as well, the converter does not support this architecture.",
        )
    return ReadBack(
        file=gguf.name,
        by=file.by,
        prompts=len(prompts),
        equal=sum(judged.same for judged in judgements),
        agreement=agreement,
    )


def _rows(run: Path) -> Sequence[PreparedRow]:
    return read_prepared(run / paths.PREPARED_HELD_OUT) or read_prepared(run / paths.PREPARED_TRAIN)
