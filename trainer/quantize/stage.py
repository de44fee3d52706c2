"""Stage `quantize`: turn the f16 GGUF into llama.cpp's k-quants.

With `imatrix`, quantization errors are weighted by how much each column matters to the trained
model on the training data's prompts, which it reads once for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from contract import paths
from contract.disk_space import check_disk_space
from contract.errors import UserError
from contract.paths import StagePaths
from contract.recipe import QuantizeSection, Recipe
from contract.results.quantize import QuantizeResult
from trainer.entrypoint import Reporter
from trainer.loading import load_tokenizer
from trainer.memory import check_memory
from trainer.prepared import read_prepared
from trainer.quantize.llama_cpp import quantize_gguf, write_imatrix

# Tokens of a chunk: as llama.cpp's own documentation has it, and fewer where there is less text.
_CONTEXT, _MIN_CONTEXT = 512, 32
# 32,768 tokens: minutes on a few cores for a model of 1.5 B parameters.
_MAX_CHUNKS = 64
# A weight in f32 with the source's and the result's rows, and memory for the program itself.
_BYTES_PER_WEIGHT, _PROGRAM_BYTES = 8, 300 << 20


def quantize(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `gguf/model-<kind>.gguf` of every k-quant that the recipe names.

    Raises:
        UserError: too little disk space or memory, or a tool that failed.
    """
    whole = Recipe.read(stage_paths.run / paths.RECIPE)
    recipe = whole.section(QuantizeSection)
    tools = stage_paths.require("tools")
    exact = stage_paths.run / paths.gguf_name("f16")
    sources = [exact, *_served_base(stage_paths.run)]
    kinds = recipe.quantizer_types()
    folder = stage_paths.output / paths.GGUF
    folder.mkdir(exist_ok=True)
    _check_disk_space(sources, kinds, folder)
    _check_memory(sources, imatrix=recipe.imatrix)
    imatrix = _imatrix(stage_paths, tools, reporter) if recipe.imatrix else None
    fallbacks = {}
    for kind in kinds:
        for source in sources:
            if source != exact and kind != recipe.quantizations[0]:
                continue
            target = folder / source.name.replace("f16", kind)
            number = quantize_gguf(
                tools,
                source,
                target,
                kind=kind,
                imatrix=imatrix,
                on_progress=reporter.progress_callback(f"quantizing to {kind}", "tensors"),
            )
            if number:
                fallbacks[target.name] = number
    for name, number in fallbacks.items():
        reporter.note(
            f"{name}: {number} weights were given a larger type, because their rows are not a "
            "multiple of 256, the block size of the k-quants"
        )
    reporter.result(
        QuantizeResult(types=kinds, imatrix=imatrix is not None, larger_than_asked=fallbacks)
    )


def _served_base(run: Path) -> list[Path]:
    """The base's own f16 file, where the adapter is served beside it."""
    base = run / paths.base_gguf_name("f16")
    return [base] if base.exists() else []


def _imatrix(stage_paths: StagePaths, tools: Path, reporter: Reporter) -> Path | None:
    run = stage_paths.run
    rows = read_prepared(run / paths.PREPARED_TRAIN)
    tokens = sum(len(row["prompt_ids"]) for row in rows)
    context = _context(tokens)
    if context is None:
        reporter.note(
            f"the prompts of the training data have {tokens} tokens, too few for an importance "
            "matrix"
        )
        return None
    tokenizer = load_tokenizer(run / paths.MERGED)
    imatrix = stage_paths.output / paths.IMATRIX
    text = imatrix.with_name("prompts.txt")
    prompts = (tokenizer.decode(row["prompt_ids"], skip_special_tokens=False) for row in rows)
    text.write_text("\n".join(prompts), encoding="utf-8")
    try:
        write_imatrix(
            tools,
            run / paths.gguf_name("f16"),
            text=text,
            imatrix=imatrix,
            context=context,
            chunks=_MAX_CHUNKS,
            on_progress=reporter.progress_callback("computing the importance matrix", "chunks"),
        )
    finally:
        text.unlink()
    return imatrix


def _context(tokens: int) -> int | None:
    """The largest power of two that leaves two chunks and a margin; None where there is none."""
    context = _CONTEXT
    while context * 3 > tokens:
        context //= 2
    return context if context >= _MIN_CONTEXT else None


def _check_disk_space(sources: Iterable[Path], kinds: Sequence[str], folder: Path) -> None:
    check_disk_space(
        folder,
        # A k-quant is at most half of f16.
        sum(source.stat().st_size for source in sources) // 2 * len(kinds),
        where=f"{paths.GGUF}",
        purpose="the quantized files take up to",
        remedy="Free some space and run the same command again.",
    )


def _check_memory(sources: Iterable[Path], *, imatrix: bool) -> None:
    for source in sources:
        tensors = _tensors(source)
        largest = max(int(tensor.n_elements) for tensor in tensors)
        check_memory("quantizing the largest weight", _BYTES_PER_WEIGHT * largest + _PROGRAM_BYTES)
        if imatrix:
            # The whole file is read, and the logits of a chunk are held as well.
            vocabulary = max(int(max(tensor.shape)) for tensor in tensors)
            needed = source.stat().st_size + 2 * 4 * vocabulary * _CONTEXT + _PROGRAM_BYTES
            check_memory("reading the whole model for an importance matrix", needed)


def _tensors(gguf: Path) -> list[Any]:
    from gguf import GGUFReader

    try:
        return list(GGUFReader(gguf).tensors)
    except (ValueError, IndexError) as error:
        raise UserError.one(
            f"{paths.GGUF}/{gguf.name}",
            "is not a complete GGUF file (truncated?)",
            "Run the same command again to recreate it.",
        ) from error
