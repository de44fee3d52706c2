"""The recipe: everything that decides what a run makes, resolved, frozen and explicit.

The keys are flat and have the field's names, so that a configuration file stays a short list.
They are declared in sections: a stage reads its own section, and that section's dump is part of
the stage's key. No key that decides memory or results has a default here; the profiles in
`configs/profiles/` state them all. `configs/README.md` documents each for people.

Names from a table (a metric, a lock, the columns of a row form) are plain text here and are
checked where the launcher resolves the recipe: every stage imports this module, and a new metric
or GPU generation must not make them all run again.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from contract.record import Record

# The types that llama.cpp's converter writes, without a compiled tool.
CONVERTER_TYPES = ("f32", "f16", "bf16", "q8_0")
# The types that the compiled `llama-quantize` makes.
QUANTIZER_TYPES = (
    "q2_k",
    "q3_k_s",
    "q3_k_m",
    "q3_k_l",
    "q4_0",
    "q4_1",
    "q4_k_s",
    "q4_k_m",
    "q5_0",
    "q5_1",
    "q5_k_s",
    "q5_k_m",
    "q6_k",
)
# Ollama takes 80 in each part of a name, and some of ours get a suffix.
_NAME_CHARACTERS = 60


def _model_name(name: str) -> str:
    # Ollama's own rule, because in the end this names an Ollama model.
    if not re.fullmatch(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*(:[\w.-]+)?", name, re.ASCII):
        raise ValueError(
            "may contain letters without accents, digits, '.', '_' and '-', "
            "with an optional 'namespace/' prefix and ':tag' suffix, as in Ollama"
        )
    if any(len(part) > _NAME_CHARACTERS for part in re.split("[/:]", name)):
        raise ValueError(f"may have at most {_NAME_CHARACTERS} characters in each part")
    return name


def _quantization(name: str) -> str:
    lowered = name.lower()
    known = (*CONVERTER_TYPES, *QUANTIZER_TYPES)
    if lowered not in known:
        raise ValueError(f"is not a known type; use one of {', '.join(known)}")
    return lowered


def _steps_or_share(steps: float | None) -> float | None:
    # As in transformers: below 1 a share of the run's steps, from 1 on their number.
    if steps is not None and steps >= 1 and steps != int(steps):
        raise ValueError("is neither a whole number of steps nor a share of the run below 1")
    return steps


def _none_is_zero(value: object) -> object:
    return 0 if value is None else value


def _switch(value: object) -> object:
    # YAML 1.1 reads on and off as booleans, and people write true and false.
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


# W&B writes an offline folder alone.
TrackerName = Literal["tensorboard", "mlflow", "wandb"]


class SectionKind(Record):
    """What all sections have in common: every number is finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class SourceSection(SectionKind):
    """The inputs. Keys are made from the digests of these files, not from their names."""

    model_to_fine_tune: str = Field(min_length=1)
    model_revision: str | None
    dataset_path: str = Field(min_length=1)
    evaluation_path: str | None


class PrepareSection(SectionKind):
    """How rows become tokens, and which of them are held out."""

    columns: dict[str, str]
    max_rows: int | None = Field(ge=1)
    held_out_fraction: float = Field(ge=0, le=0.5)
    max_length: int = Field(ge=16, description="tokens of prompt and completion together")
    system_prompt: str | None
    thinking: Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)]


class TrainSection(SectionKind):
    """The QLoRA run. Batch sizes count sequences, lengths count tokens."""

    epochs: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    gradient_accumulation_steps: int = Field(ge=1)
    lora_rank: int = Field(ge=1)
    lora_alpha: float = Field(gt=0)
    lora_dropout: float = Field(ge=0, lt=1)
    lora_target_modules: list[str] | Literal["all-linear"]
    use_rslora: bool
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"]
    warmup_ratio: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    optim: Literal["adamw_torch", "adamw_torch_fused", "paged_adamw_8bit", "paged_adamw_32bit"]
    # These two may be `auto` until the base's shape and the device's memory are known; no stage is
    # given that.
    quantize_base: Literal["nf4", "none", "auto"]
    precision: Literal["fp32", "bf16", "fp16"]
    device: Literal["cpu", "cuda"]
    cpu_threads: int = Field(ge=0, description="0 leaves it to torch")
    gradient_checkpointing: bool | Literal["auto"]
    activation_offloading: bool
    packing: bool
    packing_length: int = Field(ge=16, description="tokens of a micro-batch, where rows are packed")
    full_determinism: bool
    logging_steps: int = Field(ge=1)
    eval_steps: Annotated[float | None, Field(gt=0), AfterValidator(_steps_or_share)]
    early_stopping_patience: Annotated[int, BeforeValidator(_none_is_zero)] = Field(
        ge=0, description="evaluations without a lower held-out loss; 0 never stops early"
    )
    seed: int = Field(ge=0, lt=2**32)
    held_out_answers: int = Field(ge=0, description="held-out rows that are answered and compared")
    max_new_tokens: int = Field(ge=1)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        wrong = []
        if self.device == "cpu" and self.precision == "fp16":
            wrong.append("precision fp16 needs device cuda; use fp32 or bf16 on a CPU")
        if self.device == "cpu" and self.optim.startswith("paged_"):
            wrong.append(f"optim {self.optim} needs device cuda; use adamw_torch on a CPU")
        if self.device == "cpu" and self.activation_offloading:
            wrong.append("activation_offloading needs device cuda; set it to false on a CPU")
        if self.early_stopping_patience and self.eval_steps is None:
            wrong.append(
                "early_stopping_patience counts evaluations, and with eval_steps null there are "
                "none; set eval_steps, or early_stopping_patience to 0"
            )
        if wrong:
            raise ValueError(
                ". ".join([wrong[0], *(text[0].upper() + text[1:] for text in wrong[1:])])
            )
        return self


class CheckpointSection(SectionKind):
    """When a training saves a checkpoint. It changes no result, and is part of no stage's key."""

    checkpoint_steps: int | None = Field(ge=1, description="optimizer steps; null for never")
    checkpoint_minutes: float | None = Field(gt=0, description="null for never")
    checkpoints_kept: int = Field(ge=1)


class TrackingSection(SectionKind):
    """Where the launcher writes a training's metrics. It is part of no stage's key."""

    trackers: list[TrackerName]


class ConvertSection(SectionKind):
    """Which GGUF files are made, in which form, and the model name that they carry.

    `serving`: the merged model, or the base together with the adapter.
    """

    output_model_name: Annotated[str, AfterValidator(_model_name)]
    quantizations: list[Annotated[str, AfterValidator(_quantization)]] = Field(min_length=1)
    serving: Literal["merged", "adapter"]

    def converter_types(self) -> list[str]:
        """The types of the merged model that the converter writes; f16 always is one."""
        named = [kind for kind in self.quantizations if kind in CONVERTER_TYPES]
        return list(dict.fromkeys(["f16", *named]))

    def quantizer_types(self) -> list[str]:
        """The types that compiled tools make, each once."""
        named = [kind for kind in self.quantizations if kind in QUANTIZER_TYPES]
        return list(dict.fromkeys(named))


class QuantizeSection(ConvertSection):
    """How the k-quants are made: with or without an importance matrix of training prompts."""

    imatrix: bool


class ModelfileSection(SectionKind):
    """The served model's parameters: its context, its longest answer, its temperature."""

    num_ctx: int = Field(ge=16, description="tokens")
    num_predict: int = Field(ge=1, description="tokens of one answer, at most")
    temperature: float = Field(ge=0)


class PreflightSection(PrepareSection, TrainSection, QuantizeSection, ModelfileSection):
    """What can be held against the base's configuration and tokenizer before anything is done."""


class VerifySection(SectionKind):
    """How far a quantized GGUF may be from the merged model, and that from the trained one, over
    held-out tokens.
    """

    max_mean_kl: float = Field(gt=0, description="nats per token")
    max_merge_kl: float = Field(gt=0, description="nats per token")
    min_same_top: float = Field(ge=0, le=1, description="share of tokens")


class EvaluateSection(SectionKind):
    """How the served model's answers are scored, and how much of a skill it may lose."""

    metric: str | None
    max_skill_loss: float = Field(ge=0, le=1, description="of a full score of 1")


Section = TypeVar("Section", bound=SectionKind)


class Recipe(
    SourceSection,
    PrepareSection,
    TrainSection,
    CheckpointSection,
    TrackingSection,
    QuantizeSection,
    ModelfileSection,
    VerifySection,
    EvaluateSection,
):
    """All sections in one flat object: what the manifest holds and what the stages read."""

    profile: str
    lock: str

    @model_validator(mode="after")
    def _can_stop_early(self) -> Self:
        held_out = self.evaluation_path is not None or self.held_out_fraction > 0
        if self.early_stopping_patience and not held_out:
            raise ValueError(
                "early_stopping_patience needs held-out rows; set held_out_fraction or "
                "evaluation_path, or early_stopping_patience to 0"
            )
        return self

    def section(self, kind: type[Section]) -> Section:
        """This recipe's part for one stage."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})
