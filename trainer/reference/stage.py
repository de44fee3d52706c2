"""Stage `reference`: what the served model must answer, computed where the model was made.

A server is shown to serve the trained model by comparing with this: prompts as the base's chat
template writes them, with their tokens; the merged model's greedy answers; how far each quantized
GGUF is from the merged model; and how far that is from the model that was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contract import paths
from contract.chat_format import ChatFormat
from contract.conversation import Message
from contract.paths import StagePaths
from contract.recipe import ConvertSection, Recipe
from contract.reference import Agreement, Question, Reference
from contract.results.reference import ReferenceResult
from trainer.chat import render
from trainer.distributions import (
    Divergence,
    TopTokens,
    TrainedTokens,
    answer_positions,
    next_token_logprobs,
)
from trainer.entrypoint import Reporter
from trainer.gguf_model import gguf_model
from trainer.judging import NEAR_TIE_NATS, judge
from trainer.loading import load_tokenizer
from trainer.merged_model import load_merged
from trainer.modelfile.template import PROBES
from trainer.prepared import PreparedRow, read_prepared

_QUESTIONS = 24
_ANSWER_TOKENS = 48
# 300 MB of probabilities with the largest vocabularies of today (150,000 tokens).
_COMPARED_TOKENS = 512
# For questions like none that was trained on: small differences add up over such an answer.
_NEAR_TIE_UNLEARNED_NATS = 0.5
_UNQUANTIZED = ("f32", "f16", "bf16")
_Compared = list[tuple[PreparedRow, list[int]]]


def reference(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `reference.json` from `merged/`, `gguf/` and `prepared/`.

    Raises:
        UserError: too little memory for the merged model, or llama.cpp cannot read a file.
    """
    recipe = Recipe.read(stage_paths.run / paths.RECIPE).section(ConvertSection)
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
    compared = answer_positions(rows, _COMPARED_TOKENS)
    answers, found = _ask_files(
        stage_paths,
        recipe,
        prompts=tokens,
        ends=chat_format.end_ids,
        compared=compared,
        reporter=reporter,
    )
    model = load_merged(merged, positions=_COMPARED_TOKENS)
    stops = chat_format.end_ids
    questions = []
    for number, (messages, text, ids, answer) in enumerate(
        zip(conversations, prompts, tokens, answers, strict=True)
    ):
        reporter.progress("answering", done=number, total=len(prompts), unit="prompts")
        judged = judge(
            model,
            ids,
            answer,
            stops=stops,
            near_nats=NEAR_TIE_NATS if number < len(chosen) else _NEAR_TIE_UNLEARNED_NATS,
        )
        # From a near tie on, the file's own is as good, and is what servers are likely to say.
        said = judged.answer if not judged.right or judged.same else _without(answer, stops)
        questions.append(
            Question(
                messages=messages,
                prompt=text,
                prompt_tokens=len(ids),
                prompt_ids=ids,
                answer=_text(tokenizer, said),
                # The bytes of a letter may be cut there.
                decided=None
                if judged.decided is None
                else _text(tokenizer, said[: judged.decided]).rstrip("\ufffd"),
                held_out=number < len(chosen),
            )
        )
    reporter.progress("answering", done=len(prompts), total=len(prompts), unit="prompts")
    agreements, merge = _compare(
        model, compared, found, _trained(stage_paths.run), reporter=reporter
    )
    written = Reference(
        answer_tokens=_ANSWER_TOKENS, questions=questions, agreements=agreements, merge=merge
    )
    written.write(stage_paths.run / paths.REFERENCE)
    reporter.result(ReferenceResult(questions=len(questions), agreements=agreements, merge=merge))


def _without(answer: Sequence[int], stops: Sequence[int]) -> list[int]:
    return list(answer[:-1] if answer and answer[-1] in stops else answer)


def _text(tokenizer: Any, answer: Sequence[int]) -> str:
    return str(tokenizer.decode(answer, skip_special_tokens=False))


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


def _ask_files(
    stage_paths: StagePaths,
    recipe: ConvertSection,
    *,
    prompts: Sequence[list[int]],
    ends: Sequence[int],
    compared: _Compared,
    reporter: Reporter,
) -> tuple[list[list[int]], dict[str, list[TopTokens]]]:
    """The f16 file's greedy answers, and what each quantized file finds likely at the positions."""
    run = stage_paths.run
    longest = max(
        *(len(prompt) + _ANSWER_TOKENS for prompt in prompts),
        *(len(row["input_ids"]) for row, _ in compared),
    )
    given: dict[str, Any] = {
        "tools": stage_paths.tools,
        "ends": ends,
        "context": longest,
    }
    with gguf_model(run / paths.gguf_name("f16"), **given) as exact:
        answers = exact.answers(
            prompts, _ANSWER_TOKENS, reporter.progress_callback("asking the f16 file", "prompts")
        )
    files: dict[str, tuple[Path, Path | None]] = {
        kind: (run / paths.gguf_name(kind), None)
        for kind in dict.fromkeys(recipe.quantizations)
        if kind not in _UNQUANTIZED
    }
    if recipe.serving == "adapter":
        served = recipe.quantizations[0]
        files[f"{served} base and adapter"] = (
            run / paths.base_gguf_name(served),
            run / paths.ADAPTER_GGUF,
        )
    found: dict[str, list[TopTokens]] = {}
    for name, (gguf, adapter) in files.items():
        on_row = reporter.progress_callback(f"comparing, {name}", "rows")
        with gguf_model(gguf, adapter=adapter, **given) as file:
            found[name] = []
            for number, (row, positions) in enumerate(compared):
                on_row(number, len(compared))
                found[name].append(file.top_tokens(row["input_ids"], positions))
            on_row(len(compared), len(compared))
    return answers, found


def _trained(run: Path) -> list[TopTokens]:
    return [row.top_tokens() for row in TrainedTokens.read(run / paths.TRAINED_TOKENS).rows]


def _compare(
    model: Any,
    compared: _Compared,
    found: Mapping[str, Sequence[TopTokens]],
    trained: Sequence[TopTokens],
    *,
    reporter: Reporter,
) -> tuple[dict[str, Agreement], Agreement]:
    """Each quantized file with the merged model, and that with the trained one."""
    divergences = {name: Divergence() for name in found}
    merge = Divergence()
    for number, (row, positions) in enumerate(compared):
        reporter.progress("comparing, merged model", done=number, total=len(compared), unit="rows")
        logprobs = next_token_logprobs(model, row["input_ids"], positions)
        for name, divergence in divergences.items():
            divergence.add(logprobs, found[name][number])
        if number < len(trained):
            # Of fewer tokens, perhaps: its last row may end before.
            kept = trained[number]
            merge.add_reversed(kept, logprobs[: kept.ids.shape[0]])
    reporter.progress(
        "comparing, merged model", done=len(compared), total=len(compared), unit="rows"
    )
    return {name: one.agreement() for name, one in divergences.items()}, merge.agreement()
