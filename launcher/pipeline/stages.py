"""All stages: what each reads and writes, and on which other stages it stands. One graph.

A stage's name is its package in `trainer/`, its line on the display, its log and its record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from contract import paths
from contract.base import READ_BACK_BY_TRANSFORMERS
from contract.manifest import CONTRACT_VERSION
from contract.recipe import (
    CONVERTER_TYPES,
    QUANTIZER_TYPES,
    ConvertSection,
    ModelfileSection,
    PreflightSection,
    PrepareSection,
    QuantizeSection,
    Recipe,
    SectionKind,
    TrainSection,
)
from launcher.pipeline.code_digest import code_digest
from launcher.runtime.file_stamp import Stamps

# See `key_parts`.
KeyParts = dict[str, JsonValue]

# What the exporter image brings along: a stage that reads it runs there, where it is built.
_EXPORTER_INPUTS = frozenset({"llama_cpp", "tools"})


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage reads and writes.

    Attributes:
        section: the recipe's section that it reads, and that is part of its key.
        upstream: the stages whose outputs it reads.
        inputs: what else it reads, by the names of `contract.paths.StagePaths`.
        outputs: what it writes, relative to its folder, with `*` for what the recipe decides. All
            else that it leaves is removed when it is done.
        continues: it resumes from what an interrupted attempt with the same key left.
    """

    name: str
    section: type[SectionKind] | None = None
    upstream: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...]
    uses_gpu: bool = False
    continues: bool = False

    @property
    def reads_exporter(self) -> bool:
        """Whether it reads llama.cpp's converters or tools."""
        return not _EXPORTER_INPUTS.isdisjoint(self.inputs)


@dataclass(frozen=True)
class Input:
    """Something that stages read: its digest, known before anything runs, and where it lies.

    `locate` fetches or compiles it first where that is needed; None where the stage finds it in
    its own folder. `stamps` are those of its files when the digest was taken, where they can be
    edited: an edit while a stage reads it is then noticed.
    """

    digest: str
    locate: Callable[[], Path] | None = None
    stamps: Stamps = field(default_factory=dict)


BASE = Stage(
    name="base",
    inputs=("request", "gguf"),
    # In this order: with the record, the base is there.
    outputs=(str(paths.BASE_MODEL), str(paths.BASE_RECORD)),
    continues=True,
)
# Nothing stands on it: its code may change without anything being trained again.
PREFLIGHT = Stage(
    name="preflight",
    section=PreflightSection,
    inputs=("base", "llama_cpp"),
    outputs=(),
)
PREPARE = Stage(
    name="prepare",
    section=PrepareSection,
    inputs=("data", "evaluation", "base"),
    outputs=(str(paths.PREPARED),),
)
RENDERING = Stage(
    name="rendering",
    upstream=("prepare",),
    inputs=("base", "tools"),
    outputs=(str(paths.RENDERING),),
)
TRAIN = Stage(
    name="train",
    section=TrainSection,
    upstream=("prepare",),
    inputs=("base",),
    outputs=(
        str(paths.ADAPTER),
        str(paths.METRICS),
        str(paths.HELD_OUT_SCORES),
        str(paths.TRAINED_TOKENS),
    ),
    uses_gpu=True,
    # From its checkpoints.
    continues=True,
)
MERGE = Stage(
    name="merge",
    upstream=("prepare", "train"),
    inputs=("base",),
    outputs=(str(paths.MERGED),),
)
CONVERT = Stage(
    name="convert",
    section=ConvertSection,
    upstream=("prepare", "train", "merge"),
    inputs=("base", "llama_cpp", "tools"),
    outputs=(*(f"{paths.GGUF}/*-{kind}.gguf" for kind in CONVERTER_TYPES), str(paths.READ_BACK)),
)
QUANTIZE = Stage(
    name="quantize",
    section=QuantizeSection,
    upstream=("prepare", "merge", "convert"),
    inputs=("tools",),
    outputs=(*(f"{paths.GGUF}/*-{kind}.gguf" for kind in QUANTIZER_TYPES), str(paths.IMATRIX)),
)
MODELFILE = Stage(
    name="modelfile",
    section=ModelfileSection,
    upstream=("prepare", "merge", "convert"),
    outputs=(str(paths.MODELFILE), str(paths.SERVING)),
)
REFERENCE = Stage(
    name="reference",
    section=ConvertSection,
    upstream=("prepare", "train", "merge", "convert", "quantize"),
    inputs=("tools",),
    outputs=(str(paths.REFERENCE),),
)
QUESTIONS = Stage(
    name="questions",
    upstream=("prepare",),
    inputs=("data", "skills", "trained", "request"),
    outputs=(str(paths.QUESTIONS),),
)
BASELINE = Stage(
    name="baseline",
    section=QuantizeSection,
    upstream=("merge", "quantize"),
    inputs=("trained", "base", "llama_cpp", "tools"),
    outputs=(f"{paths.GGUF}/model-*.gguf",),
)

# `base` has a folder of its own in the cache, shared between runs.
TRAINING_STAGES = (
    PREFLIGHT,
    PREPARE,
    RENDERING,
    TRAIN,
    MERGE,
    CONVERT,
    QUANTIZE,
    MODELFILE,
    REFERENCE,
)
# In a folder of their own below the run's, so that evaluating leaves the run as it is.
EVALUATION_STAGES = (QUESTIONS, BASELINE)
ALL_STAGES = (BASE, *TRAINING_STAGES, *EVALUATION_STAGES)


def training_stages(recipe: Recipe) -> list[Stage]:
    """The stages of a run of this recipe, in their order; without `quantize` where no file of the
    recipe's needs it, and without `rendering` where a run needs none of llama.cpp's tools.
    """
    without = {
        RENDERING.name: not needs_tools(recipe),
        QUANTIZE.name: not recipe.quantizer_types(),
    }
    return [stage for stage in TRAINING_STAGES if not without.get(stage.name)]


def needs_tools(recipe: Recipe) -> bool:
    """Whether a run of this recipe needs llama.cpp's compiled programs.

    They quantize, and they read every GGUF file back. transformers reads those of two bases as
    well, so that the smoke run and the demo start on a machine that has nothing.
    """
    return (
        bool(recipe.quantizer_types())
        or recipe.serving == "adapter"
        or recipe.model_to_fine_tune not in READ_BACK_BY_TRANSFORMERS
    )


def key_parts(
    stage: Stage,
    *,
    recipe: Recipe | None,
    lock_digest: str,
    inputs: Mapping[str, Input],
    upstream_keys: Mapping[str, str],
) -> KeyParts:
    """All that decides the stage's outputs, by digest where it is more than a word; known before
    anything runs. The stage's key is the digest of it.

    Args:
        recipe: the stage's section of it counts; None where a stage has none.
        lock_digest: of the dependency lock that the stage's environment is made from.
        inputs: by name; those that the stage reads count.
        upstream_keys: the keys of the stages before it, by name.
    """
    section = {}
    if stage.section is not None and recipe is not None:
        section = recipe.section(stage.section).model_dump(mode="json")
    return {
        "contract": CONTRACT_VERSION,
        "stage": stage.name,
        "recipe": section,
        "code": code_digest(f"trainer.{stage.name}"),
        "lock": lock_digest,
        "inputs": {name: inputs[name].digest for name in stage.inputs if name in inputs},
        "upstream": {name: upstream_keys[name] for name in stage.upstream if name in upstream_keys},
    }
