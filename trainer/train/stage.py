"""Stage `train`: score the base, train the adapter, score again, write the scores."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from contract import paths
from contract.atomic_write import atomic_write
from contract.base import BaseIdentity
from contract.chat_format import ChatFormat
from contract.errors import UserError
from contract.paths import StagePaths
from contract.recipe import Recipe, TrainSection
from contract.results.train import (
    BaseAndTuned,
    Example,
    HeldOutScores,
    MemoryFigures,
    TrainResult,
)
from trainer.distributions import (
    RowTokens,
    TopTokens,
    TrainedTokens,
    answer_positions,
    next_token_logprobs,
)
from trainer.entrypoint import Reporter
from trainer.loading import load_tokenizer
from trainer.memory import give_back_freed_blocks
from trainer.prepared import PreparedRow, read_prepared
from trainer.train.estimate import estimated_bytes
from trainer.train.loading import check_device, computing_in, load_base, policy_of
from trainer.train.memory_ladder import first_line, is_out_of_memory
from trainer.train.scoring import Scores, expected_answer, score
from trainer.train.training import train_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

_EXAMPLES = 3
# Beside the checkpoints: the base's scores, which take long where answers are long.
_BASE_SCORES = "base_scores.json"
# What the merged model is compared with: how many tokens, and how many successors of each.
_COMPARED_TOKENS, _KEPT_SUCCESSORS = 256, 64


def train(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `adapter/`, `metrics.jsonl`, `held_out.json` and `trained_tokens.json` from `prepared/`
    and the base.

    Raises:
        UserError: the device cannot do what the recipe asks, no rows are held out to stop early
            by, or the memory runs out.
    """
    whole_recipe = Recipe.read(stage_paths.run / paths.RECIPE)
    recipe = whole_recipe.section(TrainSection)
    if recipe.cpu_threads:
        torch.set_num_threads(recipe.cpu_threads)
    device = check_device(recipe)
    if recipe.device == "cpu":
        give_back_freed_blocks()
    rows = read_prepared(stage_paths.run / paths.PREPARED_TRAIN)
    held_out = read_prepared(stage_paths.run / paths.PREPARED_HELD_OUT)
    if recipe.early_stopping_patience and not held_out:
        raise UserError.one(
            "early_stopping_patience",
            "no rows were held out, so there is no loss to stop by",
            "Raise held_out_fraction, set evaluation_path, or set early_stopping_patience to 0.",
        )
    tokenizer = load_tokenizer(stage_paths.require("base"))
    scorer = _Scorer(
        tokenizer,
        ChatFormat.read(stage_paths.run / paths.CHAT_FORMAT).end_ids,
        held_out,
        recipe,
        reporter,
    )

    try:
        before = _score_base(stage_paths, scorer)
        trained = train_adapter(
            stage_paths, tokenizer, rows, held_out, recipe=whole_recipe, reporter=reporter
        )
        after = scorer.score(trained.model, who="tuned", loss=trained.held_out_loss)
        trained_tokens = _trained_tokens(trained.model, held_out or rows, reporter=reporter)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError.one(
            "memory",
            f"{'the GPU' if recipe.device == 'cuda' else 'this machine'} ran out of it, one row at "
            f"a time ({first_line(error)})",
            "Lower max_length, or take a smaller base.",
        ) from error

    _save_adapter(trained.model, stage_paths)
    scores = _report(held_out, before, after)
    scores.write(stage_paths.output / paths.HELD_OUT_SCORES)
    trained_tokens.write(stage_paths.output / paths.TRAINED_TOKENS)
    reporter.result(
        TrainResult(
            device=device,
            losses=trained.losses,
            steps=trained.steps,
            planned_steps=trained.planned_steps,
            best_step=trained.best_step,
            resumed_after=trained.resumed_after,
            changed=trained.changed,
            memory=MemoryFigures(
                estimate_bytes=estimated_bytes(
                    stage_paths.require("base"), recipe, trained.longest_row
                ),
                probe_bytes=trained.probe_bytes,
                peak_bytes=trained.peak_bytes,
            ),
            held_out=scores,
        )
    )


@dataclass(frozen=True)
class _Scorer:
    """Scores models on the held-out rows, in one way before and after the training."""

    tokenizer: PreTrainedTokenizerBase
    ends: Sequence[int]
    held_out: Sequence[PreparedRow]
    recipe: TrainSection
    reporter: Reporter

    def score(self, model: Any, *, who: str, loss: float | None = None) -> Scores | None:
        """The model's scores; None where no rows are held out.

        Args:
            loss: its held-out loss, where that is known.
        """
        if not self.held_out:
            return None
        return score(
            model,
            self.tokenizer,
            self.ends,
            self.held_out,
            answers=self.recipe.held_out_answers,
            max_new_tokens=self.recipe.max_new_tokens,
            who=who,
            reporter=self.reporter,
            loss=loss,
        )


def _score_base(stage_paths: StagePaths, scorer: _Scorer) -> Scores | None:
    """The base's scores; those of a start that was cut off later, where there was one."""
    kept = stage_paths.output / paths.CHECKPOINTS / _BASE_SCORES
    with suppress(FileNotFoundError, UserError):
        return Scores.read(kept)
    base = stage_paths.require("base")
    # Loaded only for this and dropped: see load_base on 4-bit models that have generated.
    model = load_base(base, scorer.recipe) if scorer.held_out else None
    with computing_in(policy_of(base, scorer.recipe)):
        scores = scorer.score(model, who="base")
    del model
    gc.collect()
    if scorer.recipe.device == "cuda":
        torch.cuda.empty_cache()
    if scores is not None:
        scores.write(kept)
    return scores


def _trained_tokens(
    model: PeftModel, rows: Sequence[PreparedRow], *, reporter: Reporter
) -> TrainedTokens:
    """What this model predicts, for `reference` to compare the merged one with."""
    model.eval()
    compared = answer_positions(rows, _COMPARED_TOKENS)
    kept = []
    for number, (row, positions) in enumerate(compared):
        reporter.progress("predictions, tuned", done=number, total=len(compared), unit="rows")
        logprobs = next_token_logprobs(model, row["input_ids"], positions)
        kept.append(RowTokens.of(TopTokens.of(logprobs, _KEPT_SUCCESSORS)))
    reporter.progress("predictions, tuned", done=len(compared), total=len(compared), unit="rows")
    return TrainedTokens(rows=kept)


def _save_adapter(model: PeftModel, stage_paths: StagePaths) -> None:
    folder = stage_paths.output / paths.ADAPTER
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder))
    # PEFT's model card names this machine's paths.
    (folder / "README.md").unlink(missing_ok=True)
    identity = BaseIdentity.read(stage_paths.run / paths.BASE_RECORD)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    # A path would differ between machines, and the order of a set between processes.
    config["base_model_name_or_path"] = identity.source
    config["revision"] = identity.revision
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    atomic_write(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _report(
    held_out: Sequence[PreparedRow], before: Scores | None, after: Scores | None
) -> HeldOutScores:
    if before is None or after is None:
        return HeldOutScores(
            held_out_rows=0, answered_rows=0, loss=None, exact_match=None, examples=[]
        )
    match = None
    if before.exact_match is not None and after.exact_match is not None:
        match = BaseAndTuned(base=before.exact_match, tuned=after.exact_match)
    examples = [
        Example(
            prompt=row["messages"][-2]["content"],
            expected=expected_answer(row),
            base=base,
            tuned=tuned,
        )
        for row, base, tuned in zip(held_out, before.answers, after.answers, strict=False)
    ]
    return HeldOutScores(
        held_out_rows=len(held_out),
        answered_rows=len(before.answers),
        loss=BaseAndTuned(base=before.loss, tuned=after.loss),
        exact_match=match,
        examples=examples[:_EXAMPLES],
    )
