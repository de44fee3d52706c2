"""Stage `reference`: what the served model must answer, computed where the model was made.

A server is shown to serve the trained model by comparing with this: prompts as the base's chat
template writes them, with their tokens; the merged model's greedy answers; how far each quantized
GGUF is from the merged model; and how far that is from the model that was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract import paths
from contract.chat_format import ChatFormat
from contract.paths import StagePaths
from contract.recipe import ConvertSection, Recipe
from contract.reference import (
    Agreement,
    Question,
    Reference,
    Rendering,
    first_difference,
)
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
from trainer.gguf_model import gguf_model, rendered
from trainer.judging import NEAR_TIE_NATS, judge
from trainer.loading import load_tokenizer
from trainer.merged_model import load_merged
from trainer.prepared import PreparedRow, read_prepared
from trainer.reference.probes import Probe, probes

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
    whole = Recipe.read(stage_paths.run / paths.RECIPE)
    recipe = whole.section(ConvertSection)
    merged = stage_paths.run / paths.MERGED
    tokenizer = load_tokenizer(merged)
    chat_format = ChatFormat.read(stage_paths.run / paths.CHAT_FORMAT)
    rows = read_prepared(stage_paths.run / paths.PREPARED_HELD_OUT) or read_prepared(
        stage_paths.run / paths.PREPARED_TRAIN
    )
    asked = _asked(tokenizer, rows[:_QUESTIONS], whole.system_prompt)
    compared = answer_positions(rows, _COMPARED_TOKENS)
    answers, found = _ask_files(
        stage_paths,
        recipe,
        prompts=[question.ids for question in asked],
        ends=chat_format.end_ids,
        compared=compared,
        reporter=reporter,
    )
    rendering = None
    if stage_paths.tools is not None:
        rendering = _rendering(stage_paths.tools, stage_paths.run / paths.gguf_name("f16"), asked)
    model = load_merged(merged, positions=_COMPARED_TOKENS)
    questions = []
    for number, (question, answer) in enumerate(zip(asked, answers, strict=True)):
        reporter.progress("answering", done=number, total=len(asked), unit="prompts")
        questions.append(_judged(model, tokenizer, question, answer, stops=chat_format.end_ids))
    reporter.progress("answering", done=len(asked), total=len(asked), unit="prompts")
    agreements, merge = _compare(
        model, compared, found, _trained(stage_paths.run), reporter=reporter
    )
    Reference(
        answer_tokens=_ANSWER_TOKENS,
        questions=questions,
        agreements=agreements,
        merge=merge,
        rendering=rendering,
    ).write(stage_paths.output / paths.REFERENCE)
    reporter.result(ReferenceResult(questions=len(questions), agreements=agreements, merge=merge))


@dataclass(frozen=True)
class _Asked:
    """A question that is not answered yet: its conversation, and its prompt as text and tokens."""

    probe: Probe
    prompt: str
    ids: list[int]
    held_out: bool


def _asked(tokenizer: Any, rows: Sequence[PreparedRow], system_prompt: str | None) -> list[_Asked]:
    """The rows' own questions, and those that try the template."""
    own = [Probe(list(row["messages"][:-1]), tuple(row["tools"])) for row in rows]
    prompts = [
        *(
            (
                probe,
                render(tokenizer, probe.messages, tools=probe.tools, add_generation_prompt=True),
            )
            for probe in own
        ),
        *probes(tokenizer, system_prompt),
    ]
    return [
        _Asked(
            probe,
            text,
            tokenizer(text, add_special_tokens=False)["input_ids"],
            held_out=number < len(rows),
        )
        for number, (probe, text) in enumerate(prompts)
    ]


def _judged(
    model: Any, tokenizer: Any, asked: _Asked, answer: Sequence[int], *, stops: Sequence[int]
) -> Question:
    judged = judge(
        model,
        asked.ids,
        answer,
        stops=stops,
        near_nats=NEAR_TIE_NATS if asked.held_out else _NEAR_TIE_UNLEARNED_NATS,
    )
    # From a near tie on, the file's own is as good, and is what servers are likely to say.
    said = judged.answer if not judged.right or judged.same else _without(answer, stops)
    decided = None
    if judged.decided is not None:
        # The bytes of a letter may be cut there.
        decided = _text(tokenizer, said[: judged.decided]).rstrip("\ufffd")
    return Question(
        messages=asked.probe.messages,
        tools=list(asked.probe.tools),
        prompt=asked.prompt,
        prompt_tokens=len(asked.ids),
        prompt_ids=asked.ids,
        answer=_text(tokenizer, said),
        decided=decided,
        held_out=asked.held_out,
        special=asked.probe.special,
    )


def _rendering(tools: Path, gguf: Path, asked: Sequence[_Asked]) -> Rendering:
    """The questions, written by llama.cpp with the template that the GGUF holds."""
    conversations = [(question.probe.messages, question.probe.tools) for question in asked]
    texts = rendered(gguf, conversations, tools=tools)
    differing, special = [], []
    for number, (question, text) in enumerate(zip(asked, texts, strict=True)):
        if text == question.prompt:
            continue
        if question.probe.special is None:
            where, other, own = first_difference(text, question.prompt)
            differing.append(f"prompt {number + 1}: {other} instead of {own} after {where} letters")
        else:
            special.append(question.probe.special)
    return Rendering(asked=len(asked), differing=differing, special=list(dict.fromkeys(special)))


def _without(answer: Sequence[int], stops: Sequence[int]) -> list[int]:
    return list(answer[:-1] if answer and answer[-1] in stops else answer)


def _text(tokenizer: Any, answer: Sequence[int]) -> str:
    return str(tokenizer.decode(answer, skip_special_tokens=False))


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
