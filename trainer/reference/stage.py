"""Stage `reference`: what the served model must answer, computed where the model was made.

A server is shown to serve the trained model by comparing with this: prompts as the base's chat
template writes them, with their token counts; the merged model's greedy answers; and how far each
quantized GGUF is from the f16 one.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from contract import paths
from contract.chat_format import ChatFormat
from contract.conversation import Message
from contract.paths import StagePaths
from contract.recipe import Recipe
from contract.reference import Agreement, Question, Reference
from contract.results.reference import ReferenceResult
from trainer.chat import render
from trainer.entrypoint import Reporter
from trainer.generation import greedy
from trainer.loading import load_fp32, load_tokenizer
from trainer.modelfile.template import PROBES
from trainer.prepared import PreparedRow, read_prepared
from trainer.reference.agreement import agreement

_QUESTIONS = 24
_ANSWER_TOKENS = 48
# Two tokens whose probabilities are within 5 % of each other: servers compute in 16 bits.
_NEAR_TIE_NATS = 0.05
# For questions like none that was trained on: small differences add up over such an answer.
_NEAR_TIE_UNLEARNED_NATS = 0.5
_UNQUANTIZED = ("f32", "f16", "bf16")


def reference(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `reference.json` from `merged/`, `gguf/` and `prepared/`."""
    recipe = Recipe.read(stage_paths.run / paths.RECIPE)
    merged = stage_paths.run / paths.MERGED
    tokenizer = load_tokenizer(merged)
    chat_format = ChatFormat.read(stage_paths.run / paths.CHAT_FORMAT)
    rows = read_prepared(stage_paths.run / paths.PREPARED_HELD_OUT) or read_prepared(
        stage_paths.run / paths.PREPARED_TRAIN
    )
    chosen = rows[:_QUESTIONS]
    conversations: list[list[Message]] = [
        *(list(row["messages"][:-1]) for row in chosen),
        *_probes(tokenizer),
    ]
    prompts = [
        render(tokenizer, messages, add_generation_prompt=True) for messages in conversations
    ]
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts]
    model = load_fp32(merged)
    answers = greedy(
        model,
        chat_format.end_ids,
        tokens,
        max_new_tokens=_ANSWER_TOKENS,
        on_batch=reporter.progress_callback("answering", "prompts"),
    )
    stops = chat_format.end_ids
    decided = [
        decided_tokens(
            model,
            ids,
            answer,
            ended=len(answer) < _ANSWER_TOKENS,
            stops=stops,
            near_nats=_NEAR_TIE_NATS if number < len(chosen) else _NEAR_TIE_UNLEARNED_NATS,
        )
        for number, (ids, answer) in enumerate(zip(tokens, answers, strict=True))
    ]
    del model
    gc.collect()

    def text_of(answer: Sequence[int]) -> str:
        return str(tokenizer.decode(answer, skip_special_tokens=False))

    questions = [
        Question(
            messages=messages,
            prompt=text,
            prompt_tokens=len(ids),
            answer=text_of(answer),
            # The bytes of a letter may be cut there.
            decided=None if length is None else text_of(answer[:length]).rstrip("\ufffd"),
            held_out=number < len(chosen),
        )
        for number, (messages, text, ids, answer, length) in enumerate(
            zip(conversations, prompts, tokens, answers, decided, strict=True)
        )
    ]
    found = _agreements(stage_paths.run, recipe, rows, reporter=reporter)
    written = Reference(answer_tokens=_ANSWER_TOKENS, questions=questions, agreements=found)
    written.write(stage_paths.run / paths.REFERENCE)
    reporter.result(ReferenceResult(questions=len(questions), agreements=found))


def decided_tokens(
    model: Any,
    prompt: Sequence[int],
    answer: Sequence[int],
    *,
    ended: bool,
    stops: Sequence[int],
    near_nats: float = _NEAR_TIE_NATS,
) -> int | None:
    """How many of a greedy answer's tokens come before the first near tie; None without one.

    Two programs that add up the same numbers in another order, or in another precision, may take
    either of two tokens that are almost equally likely, and diverge from there.

    Args:
        ended: a stop token followed the answer, and was chosen like the others.
        stops: tokens that end an answer, whichever it is.
        near_nats: log-probabilities that are closer than this are a near tie.
    """
    chosen = [*answer, *([stops[0]] if ended else [])]
    if not chosen:
        return None
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
    logits = logits[len(prompt) - 1 : len(prompt) - 1 + len(chosen)].float()  # (chosen, vocabulary)
    # Which of the stop tokens it is makes no difference.
    logits[:, stops[0]] = logits[:, list(stops)].max(-1).values
    for other in stops[1:]:
        logits[:, other] = -torch.inf
    best = logits.topk(2, dim=-1).values
    near = ((best[:, 0] - best[:, 1]) < near_nats).nonzero()
    return int(near[0]) if len(near) else None


def _probes(tokenizer: Any) -> list[list[Message]]:
    """The conversations of several turns and alphabets that the template supports."""
    import jinja2

    kept = []
    for messages in PROBES:
        try:
            render(tokenizer, messages, add_generation_prompt=True)
        except jinja2.TemplateError:
            continue
        kept.append(messages)
    return kept


def _agreements(
    run: Path, recipe: Recipe, rows: Sequence[PreparedRow], *, reporter: Reporter
) -> dict[str, Agreement]:
    f16 = run / paths.gguf_name("f16")
    quantized = [kind for kind in dict.fromkeys(recipe.quantizations) if kind not in _UNQUANTIZED]
    found = {
        kind: agreement(f16, run / paths.gguf_name(kind), rows, name=kind, reporter=reporter)
        for kind in quantized
    }
    served = recipe.quantizations[0]
    if recipe.serving == "adapter":
        name = f"{served} base and adapter"
        base = run / paths.base_gguf_name(served)
        found[name] = agreement(
            f16, base, rows, name=name, reporter=reporter, adapter=run / paths.ADAPTER
        )
    return found
