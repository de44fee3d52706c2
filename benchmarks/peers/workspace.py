"""What all trainers are given: rows, a base in one type, and a run of ours with prepared rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.process import Usage, last_words, measure
from benchmarks.peers.tools import Task
from contract import paths
from contract.child_environment import Purpose, child_environment
from contract.errors import UserError
from contract.recipe import TrainSection
from launcher.configuration import resolve
from launcher.pipeline.bases import CachedBase, find_base
from launcher.pipeline.file_digests import FileDigests
from launcher.project import CACHE, ROOT, shown
from tests.stage_runs import begin_run, stage_environment

FOLDER = CACHE / "benchmarks"
ROWS_FILE = FOLDER / "gsm8k.jsonl"
LOGS = FOLDER / "logs"
HELD_OUT_ROWS = 64
MAX_LENGTH = 1024
_PROBE = Path(__file__).resolve().parent / "probe"
_STEP_S = 1800.0


@dataclass(frozen=True)
class BenchmarkBase:
    """A base that is trained on, and the profile whose recipe is told to all.

    `system`: see `Task`.
    """

    name: str
    profile: str
    system: str | None = None


BASES = {
    base.name: base
    for base in (
        BenchmarkBase("smoke", "smoke"),
        BenchmarkBase(
            "smollm2-135m-instruct",
            "demo",
            "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        ),
    )
}


def settings(
    rows: Path, held_out: Path, *, device: str, threads: int, own: Sequence[str]
) -> list[str]:
    """What is set beside the profile's own keys; `own` are a person's, and come last."""
    on_gpu = ["precision=bf16"] if device == "cuda" else []
    return [
        f"dataset_path={rows}",
        f"evaluation_path={held_out}",
        "system_prompt=null",
        "max_rows=null",
        f"max_length={MAX_LENGTH}",
        "epochs=1",
        "batch_size=8",
        "gradient_accumulation_steps=1",
        "lora_dropout=0",
        "lora_target_modules=all-linear",
        "quantize_base=none",
        f"device={device}",
        *on_gpu,
        f"cpu_threads={threads}",
        # Training is compared with training.
        "eval_steps=null",
        "early_stopping_patience=0",
        "held_out_answers=0",
        *own,
    ]


def read_rows(path: Path, count: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The first rows of gsm8k's training split, and those after them, which are held out.

    Raises:
        UserError: they are not there, or not gsm8k's.
    """
    remedy = (
        "Save the train split of the public dataset openai/gsm8k there, as JSONL with `question` "
        "and `answer`, or name it with --data."
    )
    if not path.is_file():
        raise UserError.one(shown(path), "is not there", remedy)
    rows: list[dict[str, str]] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if len(rows) == count + HELD_OUT_ROWS:
                break
            rows.append(_row(line, f"{shown(path)}:{number}", remedy))
    if len(rows) < count + HELD_OUT_ROWS:
        raise UserError.one(
            shown(path),
            f"has {len(rows)} rows, and {count} to train on and {HELD_OUT_ROWS} to hold out are "
            "needed",
            "Take a longer file, or fewer with --rows.",
        )
    return rows[:count], rows[count:]


def _row(line: str, where: str, remedy: str) -> dict[str, str]:
    try:
        row = json.loads(line)
        found = {"question": row["question"], "answer": row["answer"]}
    except (ValueError, KeyError, TypeError):
        raise UserError.one(where, "is no row with `question` and `answer`", remedy) from None
    if not all(isinstance(text, str) for text in found.values()):
        raise UserError.one(where, "has a question or an answer that is no text", remedy)
    return found


def find(base: BenchmarkBase) -> Path:
    """The base's folder.

    Raises:
        UserError: it was not made yet.
    """
    found = find_base(base.name, None, "rtx")
    assert isinstance(found, CachedBase)
    digests = FileDigests()
    if found.identity(digests) is None:
        found.take()
    if found.identity(digests) is None:
        raise UserError.one(
            base.name,
            "this base was not made yet",
            f"./invoke train --profile {base.profile} --ollama none makes it.",
        )
    return found.model


def environment(folder: Path, device: str, threads: int, **more: str) -> dict[str, str]:
    """The environment variables of every trainer, ours among them: those of our stages.

    Args:
        folder: takes the place of a home: what a trainer keeps for its next start is not kept.
    """
    variables = stage_environment() | {
        "HOME": str(folder),
        # Two GPUs would make two trainings of one.
        "CUDA_VISIBLE_DEVICES": "0" if device == "cuda" else "",
        "OMP_NUM_THREADS": str(threads),
        "DO_NOT_TRACK": "1",
    }
    return child_environment(Purpose.STAGE, **variables, **more)


def probe(counts: Path) -> dict[str, str]:
    """What has a trainer's process count its tokens into a file."""
    return {"PYTHONPATH": str(_PROBE), "AFFINEUR_BENCHMARK_COUNTS": str(counts)}


@dataclass(frozen=True)
class Workspace:
    """A task in a folder of its own, and what preparing it took.

    Attributes:
        held_out: prepared rows, of which no trainer knows.
        trained_tokens: of the completions, in one epoch.
        prepare: what this project's stage of that name took, which the other trainers do in their
            own process.
    """

    task: Task
    held_out: Path
    trained_tokens: int
    prepare: Usage


def make(
    folder: Path,
    base: BenchmarkBase,
    rows: tuple[list[dict[str, str]], list[dict[str, str]]],
    *,
    python: Path,
    device: str,
    threads: int,
    own: Sequence[str],
) -> Workspace:
    """Write what every trainer is given.

    Args:
        python: of the environment of this project's stages.

    Raises:
        UserError: the base was not made, a setting is wrong, or the rows cannot be prepared.
    """
    files = [folder / "train.jsonl", folder / "held_out.jsonl"]
    for file, those in zip(files, rows, strict=True):
        pairs = ({"instruction": row["question"], "output": row["answer"]} for row in those)
        file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    told = settings(*files, device=device, threads=threads, own=own)
    recipe = resolve(base.profile, settings=told)
    copied, kind = folder / "base", "bfloat16" if device == "cuda" else "float32"
    models = [sys.executable, "-m", "benchmarks.peers.models"]
    run_step([*models, "copy", find(base), copied, kind], "base")

    run = begin_run(folder / "run", recipe)
    command: list[str | Path] = [python, "-m", "trainer.prepare", "--run", run, "--base", copied]
    usage = run_step([*command, "--data", files[0], "--evaluation", files[1]], "prepare")
    held_out = (run / paths.PREPARED_HELD_OUT).rename(folder / "held_out_prepared.jsonl")
    (run / paths.PREPARED_HELD_OUT).touch()
    task = Task(
        base=copied,
        system=base.system,
        rows=rows[0],
        run=run,
        recipe=recipe.section(TrainSection),
        max_length=recipe.max_length,
    )
    return Workspace(task, held_out, _trained_tokens(run / paths.PREPARED_TRAIN), usage)


def _trained_tokens(rows: Path) -> int:
    with rows.open(encoding="utf-8") as file:
        return sum(sum(json.loads(line)["completion_mask"]) for line in file)


def run_step(command: Sequence[str | Path], name: str) -> Usage:
    """Run what is measured of no trainer; its log is named after it.

    Raises:
        UserError: it failed.
    """
    log = LOGS / f"{name}.log"
    usage = measure(
        [str(word) for word in command],
        folder=ROOT,
        environment=child_environment(Purpose.STAGE, **stage_environment()),
        log=log,
        timeout_s=_STEP_S,
    )
    if usage.code:
        raise UserError.one(shown(log), f"{name} failed: {last_words(log)}")
    return usage
