"""Train the adapter: from its first weights or from a checkpoint, to the best one."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from contract import paths
from contract.paths import StagePaths
from contract.recipe import CheckpointSection, Recipe, TrainSection
from contract.results.train import StepLosses
from trainer.entrypoint import Reporter
from trainer.lora import adapted_modules, lora_config
from trainer.prepared import PreparedRow
from trainer.train.callbacks import EvaluationCallback, FreePagesCallback, MetricsCallback
from trainer.train.checkpoint_callback import CheckpointCallback
from trainer.train.checkpoints import CheckpointStore
from trainer.train.dataset import longest_rows, training_dataset
from trainer.train.loading import load_base, policy_of
from trainer.train.memory_fallback import FallbackCallback, changed_by_kills
from trainer.train.memory_ladder import (
    first_line,
    further,
    is_out_of_memory,
    next_rung,
    release_memory,
    said,
)
from trainer.train.memory_probe import ProbeCallback, largest_micro_batch
from trainer.train.micro_batches import MicroBatchLimits
from trainer.train.packed_attention import keeps_rows_apart
from trainer.train.peak_memory import PeakMemory
from trainer.train.scoring import held_out_loss
from trainer.train.stop_request import StopRequest, stop_requests
from trainer.weights import check_mergeable

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from contract.precision_policy import PrecisionPolicy
    from trainer.train.completion_loss import CompletionTrainer


@dataclass(frozen=True)
class TrainedAdapter:
    """A model with the adapter that is kept, and what `TrainResult` says of its training."""

    model: PeftModel
    losses: list[StepLosses]
    steps: int
    planned_steps: int
    best_step: int | None
    held_out_loss: float | None
    resumed_after: list[int]
    changed: dict[str, Any]
    longest_row: int
    probe_bytes: int | None
    peak_bytes: int | None


def train_adapter(
    stage_paths: StagePaths,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[PreparedRow],
    held_out: Sequence[PreparedRow],
    *,
    recipe: Recipe,
    reporter: Reporter,
) -> TrainedAdapter:
    """Train, from the last checkpoint on where there is one, and return the best adapter.

    Raises:
        KeyboardInterrupt: a stop was asked for; the checkpoint of that step is there.
        UserError: the loss is no number, or an adapted module cannot be merged.
    """
    dataset = training_dataset(rows)
    [(ids, _)] = longest_rows(dataset, 1)
    with stop_requests() as stop:
        attempt = _Attempt(
            stage_paths,
            tokenizer,
            dataset,
            held_out,
            # What no row has is not waited for on the memory ladder.
            recipe=recipe.model_copy(update={"max_length": len(ids)}),
            stop=stop,
            reporter=reporter,
            changed=changed_by_kills(stage_paths.run),
        )
        while True:
            try:
                return attempt.run()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or (rung := next_rung(attempt.recipe_now)) is None:
                    raise
                out_of_memory = first_line(error)
            # Only now is nothing held by the error's traceback.
            release_memory()
            reporter.note(f"out of memory ({out_of_memory}); going on with {said(rung)}")
            attempt.changed = {**attempt.changed, **rung}


@dataclass
class _Attempt:
    """A training with what memory there is.

    Attributes:
        changed: keys of the recipe that were changed: since memory ran out, or because the base's
            rows cannot be packed.
    """

    stage_paths: StagePaths
    tokenizer: PreTrainedTokenizerBase
    dataset: Dataset
    held_out: Sequence[PreparedRow]
    recipe: Recipe
    stop: StopRequest
    reporter: Reporter
    changed: dict[str, Any] = field(default_factory=dict)

    @property
    def recipe_now(self) -> Recipe:
        """The recipe with what was changed."""
        return self.recipe.model_copy(update=self.changed)

    @property
    def section(self) -> TrainSection:
        """Its part for the stage, with what was changed."""
        return self.recipe.section(TrainSection).model_copy(update=self.changed)

    def run(self) -> TrainedAdapter:
        """Train, from the last checkpoint on where there is one.

        Raises:
            KeyboardInterrupt: a stop was asked for; the checkpoint of that step is there.
            UserError: the loss is no number, or an adapted module cannot be merged.
        """
        schedule = self.recipe.section(CheckpointSection)
        store = CheckpointStore(
            self.stage_paths.output / paths.CHECKPOINTS, kept=schedule.checkpoints_kept
        )
        resumed = store.newest(self.reporter.note)
        if resumed is not None:
            step = resumed.state.step
            self.reporter.note(f"resuming after step {step}, from its checkpoint")
            # What memory had run out for then, it would run out for again.
            self.changed = further(self.recipe, resumed.state.changed, self.changed)
        base = self.stage_paths.require("base")
        model = load_base(base, self.section)
        if self.recipe_now.packing and not keeps_rows_apart(model):
            self.reporter.note(
                "packing false: this base's layers look across the ends of rows, which are padded"
            )
            self.changed = {"packing": False, **self.changed}
        section = self.section
        evaluation = EvaluationCallback(
            lambda model, step: held_out_loss(
                model, self.held_out, who=f"step {step}", reporter=self.reporter
            ),
            eval_steps=section.eval_steps if self.held_out else None,
            patience=section.early_stopping_patience,
        )
        metrics = MetricsCallback(
            self.stage_paths.output / paths.METRICS, self.reporter, evaluation.losses
        )
        checkpoints = CheckpointCallback(
            store,
            schedule,
            stop=self.stop,
            evaluation=evaluation,
            metrics=metrics,
            resumed=resumed,
            changed=self.changed,
            reporter=self.reporter,
        )
        # TRL wants a folder even when it saves nothing there.
        with tempfile.TemporaryDirectory() as scratch:
            trainer, probe = _trainer(
                model,
                self.tokenizer,
                self.dataset,
                section=section,
                policy=policy_of(base, section),
                fallback=FallbackCallback(self.recipe_now, self.changed, self.reporter),
                callbacks=(evaluation, metrics, checkpoints),
                scratch=scratch,
            )
            check_mergeable(adapted_modules(trainer.model), base)
            trainer.train(resume_from_checkpoint=checkpoints.resume_from)
        if self.stop.made:
            raise KeyboardInterrupt
        evaluation.best.restore(trainer.model)
        state = trainer.state
        if state.global_step < state.max_steps:
            self.reporter.note(
                f"stopped after step {state.global_step} of {state.max_steps}: the held-out loss "
                f"was no lower in {evaluation.best.evaluations_since} evaluations"
            )
        return TrainedAdapter(
            model=trainer.model,
            losses=metrics.losses,
            steps=state.global_step,
            planned_steps=state.max_steps,
            best_step=evaluation.best.step,
            held_out_loss=evaluation.best.loss if evaluation.best.step is not None else None,
            resumed_after=checkpoints.resumed_after,
            changed=self.changed,
            longest_row=self.recipe.max_length,
            probe_bytes=probe.probe_bytes,
            peak_bytes=probe.peak_bytes,
        )


def _trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    *,
    section: TrainSection,
    policy: PrecisionPolicy,
    fallback: FallbackCallback,
    callbacks: tuple[EvaluationCallback, MetricsCallback, CheckpointCallback],
    scratch: str,
) -> tuple[CompletionTrainer, ProbeCallback]:
    from transformers import PrinterCallback, set_seed

    from trainer.train.completion_loss import CompletionTrainer

    # Before the adapter is made: its initial weights are drawn from this seed.
    set_seed(section.seed)
    limits = MicroBatchLimits(
        section.batch_size, section.packing_length if section.packing else None
    )
    update = section.batch_size * section.gradient_accumulation_steps
    probe = ProbeCallback(
        largest_micro_batch(longest_rows(dataset, update), limits), PeakMemory(section.device)
    )
    trainer = CompletionTrainer(
        limits=limits,
        checkpoints=callbacks[-1],
        model=model,
        args=training_arguments(section, policy, scratch),
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=lora_config(section),
        # The probe may be killed already; and what it takes is no time of the training.
        callbacks=[
            *(fallback, probe, *callbacks),
            *([FreePagesCallback()] if section.device == "cpu" else []),
        ],
    )
    probe.attach(trainer)
    # TRL casts a QLoRA adapter to bf16, whatever the precision: fp16's gradient scaler then
    # fails on a T4, and a CPU loses digits. bf16 training keeps fp32 weights as well.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    # The events say it already; printed dicts would only fill the log file.
    trainer.remove_callback(PrinterCallback)
    # Deterministic mode also fills every new tensor with NaN, to catch reads of memory that
    # was never written. That changes no result, and took two fifths of a small model's step.
    torch.utils.deterministic.fill_uninitialized_memory = False
    return trainer, probe


def training_arguments(recipe: TrainSection, policy: PrecisionPolicy, scratch: str) -> Any:
    """What TRL's trainer is told of a recipe; `scratch` is a folder that it wants to have."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=scratch,
        num_train_epochs=recipe.epochs,
        # A whole update: the trainer cuts it into micro-batches itself.
        per_device_train_batch_size=recipe.batch_size * recipe.gradient_accumulation_steps,
        gradient_accumulation_steps=1,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_ratio,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        optim=recipe.optim,
        bf16=policy.computing == "bf16",
        fp16=policy.scaled,
        use_cpu=recipe.device == "cpu",
        gradient_checkpointing=bool(recipe.gradient_checkpointing),
        activation_offloading=recipe.activation_offloading,
        # `prepare` has truncated the rows already.
        max_length=None,
        logging_steps=recipe.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=recipe.seed,
        data_seed=recipe.seed,
        full_determinism=recipe.full_determinism,
    )
