"""Counts, from inside a trainer's process, the tokens that it trains on and the time that takes.

Python imports this at its start, in every process that has this folder in PYTHONPATH: some trainers
start another process to train in. Nothing is imported before the trainer itself imports it, and a
step costs two sums. Every trainer that is measured trains through transformers' `Trainer`; what it
makes of a batch (padding, packing) is seen here as the model gets it.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_WATCHED = "transformers.trainer"
_COUNTS = "AFFINEUR_BENCHMARK_COUNTS"
# The label of a token that bears no loss.
_IGNORED = -100


class _WhenImported(importlib.abc.MetaPathFinder):
    """Watches the trainer as soon as its module is there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            _watch(module.Trainer, os.environ[_COUNTS])

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _watch(trainer: Any, file: str) -> None:
    train = trainer.train
    counts = {"batches": 0, "trained_tokens": 0, "tokens": 0, "padded_tokens": 0}

    def counting(step: Any) -> Any:
        @functools.wraps(step)
        def training_step(model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            # A trainer that hands over something else goes on, uncounted.
            labels, ids = inputs.get("labels"), inputs.get("input_ids")
            if labels is not None and ids is not None:
                mask = inputs.get("attention_mask")
                counts["batches"] += 1
                counts["trained_tokens"] += int((labels != _IGNORED).sum())
                counts["padded_tokens"] += ids.numel()
                counts["tokens"] += ids.numel() if mask is None else int(mask.sum())
            return step(model, inputs, *rest, **more)

        return training_step

    @functools.wraps(train)
    def watched_train(self: Any, *rest: Any, **more: Any) -> Any:
        # Of this trainer, whose class may have a step of its own.
        self.training_step = counting(self.training_step)
        started_s = time.monotonic()
        try:
            return train(self, *rest, **more)
        finally:
            found = {**counts, "training_s": time.monotonic() - started_s}
            # The trainer imported it long ago; what its allocator holds is what a GPU must have.
            cuda = sys.modules["torch"].cuda
            found["gpu_peak_bytes"] = cuda.max_memory_reserved() if cuda.is_available() else 0
            Path(file).write_text(json.dumps(found), encoding="utf-8")

    trainer.train = watched_train


if os.environ.get(_COUNTS):
    sys.meta_path.insert(0, _WhenImported())
