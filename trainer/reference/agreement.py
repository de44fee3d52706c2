"""How far a quantized GGUF is from the f16 one: both distributions over the same tokens."""

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

# 300 MB of probabilities with the largest vocabularies of today (150,000 tokens).
_MAX_TOKENS = 512


def agreement(
    f16: Path,
    quantized: Path,
    rows: Sequence[PreparedRow],
    *,
    name: str,
    reporter: Reporter,
    adapter: Path | None = None,
) -> Agreement:
    """Compare the next-token distributions of two GGUF files over the rows' completion tokens.

    The mean Kullback-Leibler divergence D(f16 || quantized) in nats per token, and the share of
    tokens whose most likely successor is the same. Both files are read by transformers, which
    unpacks quantized weights into fp32: what is compared is the quantization, not a server's
    kernels.

    Args:
        rows: at least one; the first that make up some hundreds of tokens are used.
        name: of the quantized file, for the progress line.
        adapter: a PEFT adapter that is served with the quantized file.
    """
    rows = _first_rows(rows)
    total, same, tokens = 0.0, 0, 0
    expected_rows = list(_distributions(f16, rows, what=f"{name}: f16", reporter=reporter))
    found_rows = _distributions(
        quantized, rows, what=f"{name}: quantized", reporter=reporter, adapter=adapter
    )
    for expected, found in zip(expected_rows, found_rows, strict=True):
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
        if tokens >= _MAX_TOKENS:
            break
    return kept


def _distributions(
    gguf: Path,
    rows: Sequence[PreparedRow],
    *,
    what: str,
    reporter: Reporter,
    adapter: Path | None = None,
) -> Iterator[torch.Tensor]:
    from peft import PeftModel

    model: Any = load_fp32(gguf)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    for number, row in enumerate(rows):
        reporter.progress(f"comparing, {what}", done=number, total=len(rows), unit="rows")
        # The token before each completion token predicts it.
        predicting = torch.tensor(row["completion_mask"][1:], dtype=torch.bool)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        yield logits[predicting].log_softmax(-1)
    reporter.progress(f"comparing, {what}", done=len(rows), total=len(rows), unit="rows")
    del model
    gc.collect()
