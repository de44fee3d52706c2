"""Stage `merge`: add the adapter's weights to those of the full-precision base.

Never to the 4-bit ones: quantizing them once more is how merged models come to differ from what
was trained. The base's files are copied as they are, and the weights that the adapter changes are
overwritten in the copies, one at a time, computed in fp32 and stored in the base's own precision.
So the memory needed is that of the largest of them, whatever the size of the model.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from contract import paths
from contract.chat_format import ChatFormat
from contract.disk_space import check_disk_space
from contract.errors import UserError
from contract.paths import StagePaths
from contract.results.merge import MergeResult
from trainer.adapter import Adapter
from trainer.entrypoint import Reporter
from trainer.memory import check_memory
from trainer.merge.model_folder import write_config, write_tokenizer
from trainer.weights import INDEX, Weight, largest_bytes, targeted, weight_files, weights

# The weight, the delta, and the product before it is scaled.
_COPIES_IN_MEMORY = 3


def merge(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `merged/`, a Hugging Face folder, from the base and `adapter/`.

    Raises:
        UserError: quantized weights, an adapter that is more than LoRA, too little disk space or
            memory, or weights that become NaN or infinite.
    """
    base = stage_paths.require("base")
    folder = stage_paths.output / paths.MERGED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    dtype = write_config(base, folder)
    adapter = Adapter.read(stage_paths.run / paths.ADAPTER)
    merge_weights(base, adapter, folder, reporter=reporter)
    write_tokenizer(base, ChatFormat.read(stage_paths.run / paths.CHAT_FORMAT), folder)
    reporter.result(MergeResult(dtype=dtype, merged=len(adapter.modules)))


def merge_weights(base: Path, adapter: Adapter, folder: Path, *, reporter: Reporter) -> None:
    """Copy the base's safetensors files into the folder, with the adapter's weights merged in.

    Raises:
        UserError: see `merge`.
    """
    found = weights(base)
    targets = targeted(adapter.modules, found)
    files = weight_files(base)
    check_disk_space(
        folder,
        sum(file.stat().st_size for file in files),
        where=f"{paths.MERGED}",
        purpose="the merged model takes",
        remedy="Free some space and run the same command again.",
    )
    largest = largest_bytes(found, targets.values())
    check_memory("merging the largest weight", _COPIES_IN_MEMORY * largest)
    for number, file in enumerate(files):
        reporter.progress("copying", done=number, total=len(files), unit="files")
        shutil.copyfile(file, folder / file.name)
        # A base in a cache may be read-only.
        (folder / file.name).chmod(0o644)
    if (base / INDEX).exists():
        shutil.copyfile(base / INDEX, folder / INDEX)
    # In the order of the files, so that the disk is read forward.
    ordered = sorted(targets, key=lambda module: _position(found[targets[module]]))
    for number, module in enumerate(ordered):
        reporter.progress("merging", done=number, total=len(ordered), unit="weights")
        weight = found[targets[module]]
        delta = adapter.delta(module)
        if tuple(delta.shape) != weight.shape:
            raise UserError.one(
                "adapter",
                f"it changes {module} with the shape {tuple(delta.shape)}, and the base's has "
                f"{weight.shape} (another base, or added tokens)",
                "Merge it into the base that it was trained on.",
            )
        merged = weight.read().add_(delta)
        if not bool(torch.isfinite(merged).all()):
            raise UserError.one(
                "adapter",
                f"merging it makes weights of {module} NaN or infinite: the training diverged",
                "Use a smaller learning_rate.",
            )
        weight.write(folder / weight.file.name, merged)
    reporter.progress("merging", done=len(ordered), total=len(ordered), unit="weights")


def _position(weight: Weight) -> tuple[str, int]:
    return weight.file.name, weight.offset
