"""Stage `train`: score the base, train the adapter, score again, write the scores."""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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
    StepLosses,
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
from trainer.lora import adapted_modules, lora_config
from trainer.prepared import PreparedRow, read_prepared
from trainer.train.callbacks import EvaluationCallback, MetricsCallback
from trainer.train.dataset import training_dataset
from trainer.train.loading import check_device, computing_in, load_base
from trainer.train.scoring import Scores, expected_answer, held_out_loss, score
from trainer.weights import check_mergeable

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

_EXAMPLES = 3
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
        before = _score_base(stage_paths.require("base"), scorer)
        trained = _train_adapter(
            stage_paths,
            tokenizer,
            rows,
            held_out,
            recipe=recipe,
            max_length=whole_recipe.max_length,
            reporter=reporter,
        )
        after = scorer.score(trained.model, who="tuned", loss=trained.held_out_loss)
        trained_tokens = _trained_tokens(trained.model, held_out or rows, reporter=reporter)
    except torch.OutOfMemoryError as error:
        raise UserError.one(
            "memory",
            f"the GPU ran out of memory ({str(error).splitlines()[0]})",
            "Halve batch_size and double gradient_accumulation_steps, or lower max_length.",
        ) from error

    _save_adapter(trained.model, stage_paths)
    scores = _report(held_out, before, after)
    scores.write(stage_paths.run / paths.HELD_OUT_SCORES)
    trained_tokens.write(stage_paths.run / paths.TRAINED_TOKENS)
    reporter.result(
        TrainResult(
            device=device,
            losses=trained.losses,
            steps=trained.steps,
            planned_steps=trained.planned_steps,
            best_step=trained.best_step,
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


@dataclass(frozen=True)
class _Trained:
    """A model with the adapter that is kept, and what `TrainResult` says of its training."""

    model: PeftModel
    losses: list[StepLosses]
    steps: int
    planned_steps: int
    best_step: int | None
    held_out_loss: float | None


def _score_base(base: Path, scorer: _Scorer) -> Scores | None:
    # Loaded only for this and dropped: see load_base on 4-bit models that have generated.
    model = load_base(base, scorer.recipe) if scorer.held_out else None
    with computing_in(scorer.recipe):
        scores = scorer.score(model, who="base")
    del model
    gc.collect()
    if scorer.recipe.device == "cuda":
        torch.cuda.empty_cache()
    return scores


def _train_adapter(
    stage_paths: StagePaths,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[PreparedRow],
    held_out: Sequence[PreparedRow],
    *,
    recipe: TrainSection,
    max_length: int,
    reporter: Reporter,
) -> _Trained:
    from transformers import set_seed

    from trainer.train.completion_loss import CompletionTrainer

    evaluation = EvaluationCallback(
        lambda model, step: held_out_loss(model, held_out, who=f"step {step}", reporter=reporter),
        eval_steps=recipe.eval_steps if held_out else None,
        patience=recipe.early_stopping_patience,
    )
    metrics_callback = MetricsCallback(stage_paths.run / paths.METRICS, reporter, evaluation.losses)
    # TRL wants a folder even when it saves nothing there.
    with tempfile.TemporaryDirectory() as scratch:
        # Before the adapter is made: its initial weights are drawn from this seed.
        set_seed(recipe.seed)
        trainer = CompletionTrainer(
            model=load_base(stage_paths.require("base"), recipe),
            args=training_arguments(recipe, max_length, scratch),
            train_dataset=training_dataset(rows),
            processing_class=tokenizer,
            peft_config=lora_config(recipe),
            callbacks=[evaluation, metrics_callback],
        )
        check_mergeable(adapted_modules(trainer.model), stage_paths.require("base"))
        # TRL casts a QLoRA adapter to bf16, whatever the precision: fp16's gradient scaler then
        # fails on a T4, and a CPU loses digits. bf16 training keeps fp32 weights as well.
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        _remove_printer(trainer)
        # Deterministic mode also fills every new tensor with NaN, to catch reads of memory that
        # was never written. That changes no result, and took two fifths of a small model's step.
        torch.utils.deterministic.fill_uninitialized_memory = False
        trainer.train()
    evaluation.best.restore(trainer.model)
    state = trainer.state
    if state.global_step < state.max_steps:
        reporter.note(
            f"stopped after step {state.global_step} of {state.max_steps}: the held-out loss was "
            f"no lower in {evaluation.best.evaluations_since} evaluations"
        )
    return _Trained(
        model=trainer.model,
        losses=metrics_callback.losses,
        steps=state.global_step,
        planned_steps=state.max_steps,
        best_step=evaluation.best.step,
        held_out_loss=evaluation.best.loss if evaluation.best.step is not None else None,
    )


def training_arguments(recipe: TrainSection, max_length: int, scratch: str) -> Any:
    """What TRL's trainer is told of a recipe; `scratch` is a folder that it wants to have."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=scratch,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_ratio,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        optim=recipe.optim,
        bf16=recipe.precision == "bf16",
        fp16=recipe.precision == "fp16",
        use_cpu=recipe.device == "cpu",
        gradient_checkpointing=recipe.gradient_checkpointing,
        packing=recipe.packing,
        # `prepare` has truncated the rows already; packing fills up to this length.
        max_length=max_length,
        logging_steps=recipe.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=recipe.seed,
        data_seed=recipe.seed,
        full_determinism=recipe.full_determinism,
    )


def _remove_printer(trainer: Any) -> None:
    # The events say it already; printed dicts would only fill the log file.
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


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
    folder = stage_paths.run / paths.ADAPTER
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
