"""How far a rounded GGUF is from the unrounded one: the same tokens, both distributions."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from contract.reference import Agreement
from trainer.entrypoint import Reporter
from trainer.loading import load_fp32
from trainer.prepared import PreparedRow

# 300 MB of probabilities in the widest vocabularies of today (150,000 tokens).
_MOST_TOKENS = 512


def agreement(
    exact: Path,
    rounded: Path,
    rows: Sequence[PreparedRow],
    name: str,
    reporter: Reporter,
    adapter: Path | None = None,
) -> Agreement:
    """Compare the next-token distributions of two GGUF files over the rows' completion tokens.

    The mean Kullback-Leibler divergence D(exact || rounded) in nats per token, and the share of
    tokens whose most likely successor is the same. Both files are read by transformers, which
    unpacks rounded weights into fp32: the rounding is compared, not a server's kernels.

    Args:
        rows: at least one; as many of them as make up some hundreds of tokens.
        adapter: a PEFT adapter that is served beside the rounded file.
    """
    rows = _first_rows(rows)
    total, same, tokens = 0.0, 0, 0
    log_probabilities = list(_distributions(exact, rows, f"{name}: the unrounded file", reporter))
    for expected, found in zip(
        log_probabilities,
        _distributions(rounded, rows, f"{name}: the file", reporter, adapter),
        strict=True,
    ):
        # (completion tokens, vocabulary) each.
        total += float((expected.exp() * (expected - found)).sum())
        same += int((expected.argmax(-1) == found.argmax(-1)).sum())
        tokens += expected.shape[0]
    return Agreement(mean_kl=max(total / tokens, 0.0), same_top=same / tokens, tokens=tokens)


def _first_rows(rows: Sequence[PreparedRow]) -> list[PreparedRow]:
    kept, tokens = [], 0
    for row in rows:
        kept.append(row)
        tokens += sum(row["completion_mask"])
        if tokens >= _MOST_TOKENS:
            break
    return kept


def _distributions(
    gguf: Path,
    rows: Sequence[PreparedRow],
    what: str,
    reporter: Reporter,
    adapter: Path | None = None,
) -> Iterator[torch.Tensor]:
    from peft import PeftModel

    model: Any = load_fp32(gguf.parent, gguf_file=gguf.name)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    for number, row in enumerate(rows):
        reporter.progress(f"comparing, {what}", number, len(rows), "rows")
        # The token before each completion token predicts it.
        predicting = torch.tensor(row["completion_mask"][1:], dtype=torch.bool)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        yield logits[predicting].log_softmax(-1)
    reporter.progress(f"comparing, {what}", len(rows), len(rows), "rows")
    del model
    gc.collect()
