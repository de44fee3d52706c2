"""The memory estimate against the measured peak of trainings on the CPU.

`./invoke bench memory [NAME...]`, in about ten minutes. Each training is run by the stage itself in
a process of its own, for two updates (one of them for 48) from the loading of the base to the saved
adapter. The peak is the process's largest resident set (`ru_maxrss`): tensors, the pages of files
that are mapped, and what the allocator has not given back. The bases have random weights in bf16,
as published ones do; what a training takes depends on their shape, and on that of its rows.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.memory_estimate import TrainingMemory, largest_micro_batch, training_memory
from contract.model_shape import ModelShape
from contract.paths import StagePaths
from contract.precision_policy import precision_policy
from contract.recipe import Recipe, TrainSection
from contract.results.train import TrainResult
from launcher.configuration import resolve
from launcher.project import ROOT

_UPDATES = 2
_GOAL_MEDIAN, _GOAL_WORST = 0.10, 0.25
_PLAIN = ["quantize_base=none", "precision=fp32"]
_ROUNDED = ["quantize_base=none", "precision=bf16"]
_NF4 = ["quantize_base=nf4", "precision=fp32"]
_NF4_ROUNDED = ["quantize_base=nf4", "precision=bf16"]
_TWICE = ["gradient_checkpointing=true"]

# Shapes of random bases. `narrow` is most of all activations, `words` vocabulary, `deep` layers.
_SHAPES: dict[str, dict[str, Any]] = {
    "narrow": {
        "model_type": "llama",
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "vocab_size": 8192,
        "tie_word_embeddings": True,
    },
    "words": {
        "model_type": "qwen2",
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
    "deep": {
        "model_type": "qwen3",
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 24,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 48,
        "vocab_size": 32_000,
        "tie_word_embeddings": False,
    },
    "smollm2-135m": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
    },
    "fused": {
        "model_type": "phi3",
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "vocab_size": 32_064,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
    },
    "capped": {
        "model_type": "gemma2",
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 48,
        "vocab_size": 64_000,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class Configuration:
    """One training: a base, the rows of a micro-batch, and what the recipe changes.

    They are packed, all of an update in one sequence. Where there are `shorter` ones, every second
    is half as long as the others, and they are padded. `varied` ones are from a quarter as long to
    as long, so that no two micro-batches have the same shape.
    """

    name: str
    base: str
    rows: int
    tokens: int
    settings: list[str] = field(default_factory=list)
    shorter: bool = False
    varied: bool = False
    updates: int = _UPDATES

    def recipe(self) -> Recipe:
        """The smoke profile's, changed."""
        own = [
            f"batch_size={self.rows}",
            f"max_length={self.tokens}",
            f"epochs={1}",
            "model_to_fine_tune=smoke",
            "cpu_threads=2",
            "held_out_answers=0",
            f"packing_length={self.rows * self.tokens}",
            f"packing={not self.shorter}".lower(),
        ]
        return resolve("smoke", settings=[*own, *self.settings])

    def lengths(self) -> list[int]:
        """Of the rows of all updates."""
        rows = self.updates * self.rows
        if self.varied:
            drawn = random.Random(0)
            return [drawn.randint(self.tokens // 4, self.tokens) for _ in range(rows)]
        pattern = [self.tokens, self.tokens // 2 if self.shorter else self.tokens]
        return [pattern[number % 2] for number in range(rows)]


CONFIGURATIONS = [
    Configuration("few tokens", "narrow", 2, 256, _PLAIN),
    Configuration("activations", "narrow", 16, 512, _PLAIN),
    Configuration("one long row", "narrow", 1, 4096, _PLAIN),
    Configuration("padded rows", "narrow", 16, 512, _PLAIN, shorter=True),
    Configuration("bf16", "narrow", 16, 512, _ROUNDED),
    Configuration("NF4", "narrow", 16, 512, _NF4),
    Configuration("NF4, bf16, dropout", "narrow", 12, 512, [*_NF4_ROUNDED, "lora_dropout=0.05"]),
    Configuration("rank 128", "narrow", 8, 512, [*_PLAIN, "lora_rank=128"]),
    Configuration("computed twice", "narrow", 32, 512, [*_PLAIN, *_TWICE]),
    Configuration("large vocabulary", "words", 4, 256, _PLAIN),
    Configuration("large vocabulary, twice", "words", 8, 256, [*_PLAIN, *_TWICE]),
    Configuration("large vocabulary, NF4, bf16", "words", 4, 256, _NF4_ROUNDED),
    Configuration("24 layers", "deep", 8, 512, _PLAIN),
    Configuration("24 layers, NF4, twice", "deep", 16, 512, [*_NF4, *_TWICE]),
    Configuration("SmolLM2-135M", "smollm2-135m", 2, 256, _PLAIN),
    Configuration("SmolLM2-135M, NF4, bf16", "smollm2-135m", 2, 256, _NF4_ROUNDED),
    Configuration(
        "SmolLM2-135M, 48 updates", "smollm2-135m", 4, 256, _ROUNDED, varied=True, updates=48
    ),
    Configuration("Phi-3's layers", "fused", 8, 512, _PLAIN),
    Configuration("Gemma 2's layers", "capped", 4, 512, _PLAIN),
]


@dataclass(frozen=True)
class Line:
    """An estimate beside its measurement."""

    configuration: Configuration
    estimate: TrainingMemory
    peak_bytes: int
    probe_bytes: int

    @property
    def error(self) -> float:
        """Relative to the peak; negative where the estimate is too low."""
        return self.estimate.total_bytes / self.peak_bytes - 1


def estimate(configuration: Configuration, base: Path) -> TrainingMemory:
    """The estimate for a configuration, as `./invoke plan` makes it."""
    shape = ModelShape.read(base)
    assert shape is not None
    section = configuration.recipe().section(TrainSection)
    attention = "eager" if shape.family_traits.eager else "sdpa"
    batch = largest_micro_batch(section, configuration.tokens)
    return training_memory(shape, section, precision_policy(section, None, attention), batch)


def measure(configuration: Configuration, base: Path, scratch: Path) -> tuple[int, int]:
    """The peak of a training in a process of its own, and what its probe said, in bytes."""
    from tests import stage_runs
    from tests.gpu import trainings

    recipe = configuration.recipe()
    run = stage_runs.begin_run(scratch / "run", recipe)
    shape = ModelShape.read(base)
    assert shape is not None
    trainings.write_rows(run, configuration.lengths(), shape.vocab)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--train", str(run), str(base)],
        cwd=ROOT,
        env={**os.environ, **stage_runs.stage_environment()},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    peak, probe = done.stdout.splitlines()[-1].split()
    return int(peak), int(probe)


def make_base(name: str, scratch: Path) -> Path:
    """A base of random weights, made in a process of its own."""
    folder = scratch / name
    if not folder.exists():
        command = [sys.executable, "-m", "benchmarks.memory", "--make", name, str(scratch)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


def _make_here(name: str, scratch: Path) -> None:
    from transformers import AutoConfig

    from tests.gpu import bases

    values = dict(_SHAPES[name])
    config = AutoConfig.for_model(values.pop("model_type"), max_position_embeddings=8192, **values)
    bases.random_base(scratch, name, config)


def _train_here(run: Path, base: Path) -> None:
    from trainer.entrypoint import Reporter
    from trainer.train.stage import train

    events = io.StringIO()
    train(StagePaths(run=run, base=base), Reporter(events))
    result = TrainResult.model_validate(json.loads(events.getvalue().splitlines()[-1])["values"])
    assert result.memory is not None
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, result.memory.probe_bytes)


def table(lines: list[Line]) -> str:
    """All lines in Markdown, with the median and the worst error."""
    rows = [
        "| training | base | tokens | type | estimate | probe | peak | of it the runtime | error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        one, section = line.configuration, line.configuration.recipe().section(TrainSection)
        kind = f"{'NF4, ' if section.quantize_base == 'nf4' else ''}{section.precision}"
        rows.append(
            f"| {one.name} | {one.base} | {one.rows} x {one.tokens} | {kind} | "
            f"{line.estimate.total_bytes / 1e9:.2f} GB | {line.probe_bytes / 1e9:.2f} GB | "
            f"{line.peak_bytes / 1e9:.2f} GB | "
            f"{line.estimate.runtime.size_bytes / line.peak_bytes:.0%} | {line.error:+.1%} |"
        )
    errors = [abs(line.error) for line in lines]
    rows += [
        "",
        f"Error: median {statistics.median(errors):.1%} (goal: at most {_GOAL_MEDIAN:.0%}), "
        f"worst {max(errors):.1%} (goal: at most {_GOAL_WORST:.0%}), {len(lines)} trainings.",
    ]
    return "\n".join(rows)


def main(names: list[str]) -> None:
    """Measure every configuration, or those named, and print the table."""
    lines = []
    for configuration in CONFIGURATIONS:
        if names and configuration.name not in names:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            base = make_base(configuration.base, Path(scratch))
            peaks = measure(configuration, base, Path(scratch))
            lines.append(Line(configuration, estimate(configuration, base), *peaks))
        print(f"{configuration.name}: {lines[-1].error:+.1%}", file=sys.stderr, flush=True)
    print(table(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        _train_here(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--make"]:
        _make_here(sys.argv[2], Path(sys.argv[3]))
    else:
        main(sys.argv[1:])
