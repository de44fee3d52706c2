"""Stage `baseline`: the base itself as a GGUF, of the same type as the tuned model.

So that the two differ by the training alone, the base gets the merged model's tokenizer and the
same quantization.
"""

from __future__ import annotations

import shutil

from contract import paths
from contract.paths import StagePaths
from contract.recipe import CONVERTER_TYPES, Recipe
from contract.results.baseline import BaselineResult
from trainer.convert.llama_cpp import write_gguf
from trainer.convert.stage import base_as_merged
from trainer.entrypoint import Reporter


def baseline(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `gguf/model-<type>.gguf` of the base, in a folder of its own.

    Raises:
        UserError: llama.cpp cannot convert or quantize it.
    """
    trained = stage_paths.require("trained")
    recipe = Recipe.read(trained / paths.RECIPE)
    kind = recipe.quantizations[0]
    written = kind if kind in CONVERTER_TYPES else "f16"
    gguf = stage_paths.output / paths.gguf_name(written)
    gguf.parent.mkdir(parents=True, exist_ok=True)
    reporter.progress("converting the base", done=0, total=1, unit="files")
    with base_as_merged(stage_paths.require("base"), trained / paths.MERGED) as base:
        write_gguf(
            stage_paths.require("llama_cpp"),
            base,
            gguf,
            quantization=written,
            model_name=recipe.output_model_name,
        )
    if kind != written:
        from trainer.quantize.llama_cpp import quantize_gguf

        # The tool is given its name alone, which it writes into the file: it must lie beside it.
        imatrix = stage_paths.output / paths.IMATRIX
        if (trained / paths.IMATRIX).exists():
            shutil.copyfile(trained / paths.IMATRIX, imatrix)
        quantize_gguf(
            stage_paths.require("tools"),
            gguf,
            stage_paths.output / paths.gguf_name(kind),
            kind=kind,
            imatrix=imatrix if imatrix.exists() else None,
            on_progress=reporter.progress_callback("quantizing the base", "tensors"),
        )
        gguf.unlink()
        imatrix.unlink(missing_ok=True)
    reporter.result(BaselineResult(type=kind))
