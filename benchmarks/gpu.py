"""Tokens a second and peak memory of training on this machine's NVIDIA GPU, setting by setting.

`./invoke bench gpu`, in at most four minutes. The base has the shape of Qwen2.5-1.5B and
random weights; the rows have the lengths of a usual instruction dataset (212 tokens on average) and
random tokens. The recipe is the profile `rtx` with its configuration file, and each setting changes
it in one thing. Each is trained by the stage itself in a process of its own, so that one that fails
or hangs costs a line of the table and no more. The ratios are to the profile as it is.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from contract import paths
from contract.errors import UserError
from contract.paths import StagePaths
from contract.record import Record
from contract.results.train import TrainingMetrics
from launcher.configuration import resolve
from launcher.project import ROOT
from tests import stage_runs
from tests.gpu import bases, trainings
from trainer.entrypoint import Reporter

SETTINGS: dict[str, list[str]] = {
    "profile rtx": [],
    "padding": ["packing=false"],
    "no gradient checkpointing": ["gradient_checkpointing=false"],
    "adamw_torch_fused": ["optim=adamw_torch_fused"],
    "not deterministic": ["full_determinism=false"],
    "all of these": [
        "gradient_checkpointing=false",
        "optim=adamw_torch_fused",
        "full_determinism=false",
    ],
    "fp16": ["precision=fp16"],
}
_WARM_UP_STEPS, _STEPS = 1, 3
# More than the steps take, packed as well.
_ROWS, _MEAN_TOKENS, _SPREAD, _MAX_TOKENS = 1100, 212, 0.5, 1024
_IN_ALL_S, _EACH_S = 240.0, 90.0


class Measured(Record):
    """What a training took on the GPU. Memory is that of torch's allocator, in this process alone.

    `tokens_per_s` counts tokens that are no padding, over the steps after those of the warm-up;
    `step_peak_bytes` is the most that was allocated in them. The other peaks are those of the whole
    process, `peak_reserved_bytes` with what the allocator holds back. `device_used_bytes` is what
    the driver counts at the end: with CUDA's context and the pages of a paged optimizer, and of
    whatever else uses the GPU.
    """

    tokens_per_s: float
    step_s: float
    step_peak_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    device_used_bytes: int
    losses: list[float]


class Line(Record):
    """One setting: what was measured, or why it was not."""

    name: str
    settings: list[str]
    measured: Measured | None
    failure: str | None


class Figures(Record):
    """The whole table, and what it was measured on."""

    device: str
    torch: str
    cuda: str
    lines: list[Line]


def measure(
    run: Path, base: Path, *, warm_up: int, steps: int, timeout_s: float, limit_bytes: int = 0
) -> Measured:
    """Train a run that has its recipe and its rows, in a process of its own.

    It ends after these steps, or with the rows: then the whole stage was measured.

    Args:
        limit_bytes: what torch may allocate; 0 for all that there is.

    Raises:
        UserError: it failed, with the last that it said, or took too long.
    """
    command = [sys.executable, "-m", "benchmarks.gpu", "--measure", str(run), "--base", str(base)]
    command += ["--warm-up", str(warm_up), "--steps", str(steps), "--limit", str(limit_bytes)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **stage_runs.stage_environment()},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise UserError.one(run.name, f"took more than {timeout_s:.0f} s") from None
    if done.returncode:
        raise UserError.one(run.name, (done.stderr.strip().splitlines() or ["no word"])[-1])
    return Measured.model_validate_json(done.stdout.splitlines()[-1])


class _Enough(Exception):
    """All steps that count are done."""


class _Watch(Reporter):
    """Looks at the memory where a stage reports a step, and ends it when all are done."""

    def __init__(self, *, warm_up: int, steps: int) -> None:
        super().__init__(io.StringIO())
        self._warm_up, self._last = warm_up, warm_up + steps
        self.warm_up_allocated = self.warm_up_reserved = 0

    def progress(
        self,
        doing: str,
        *,
        done: int,
        total: int,
        unit: str,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """See `Reporter.progress`; transformers calls it before it writes the step's metrics."""
        import torch

        del total, unit, figures
        if doing != "training":
            return
        if done == self._warm_up:
            self.warm_up_allocated = torch.cuda.max_memory_allocated()
            self.warm_up_reserved = torch.cuda.max_memory_reserved()
            torch.cuda.reset_peak_memory_stats()
        if done > self._last:
            raise _Enough


def _measure_here(run: Path, base: Path, *, warm_up: int, steps: int, limit_bytes: int) -> Measured:
    import torch

    from trainer.train.stage import train

    if limit_bytes:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(limit_bytes / whole)
    watch = _Watch(warm_up=warm_up, steps=steps)
    with suppress(_Enough):
        train(StagePaths(run=run, base=base), watch)
    text = (run / paths.METRICS).read_text().splitlines()
    lines = [TrainingMetrics.model_validate_json(line) for line in text]
    first, last = lines[warm_up - 1], lines[warm_up + steps - 1]
    seconds = last.seconds - first.seconds
    free, whole = torch.cuda.mem_get_info()
    return Measured(
        tokens_per_s=(last.tokens - first.tokens) / seconds,
        step_s=seconds / steps,
        step_peak_bytes=torch.cuda.max_memory_allocated(),
        peak_allocated_bytes=max(watch.warm_up_allocated, torch.cuda.max_memory_allocated()),
        peak_reserved_bytes=max(watch.warm_up_reserved, torch.cuda.max_memory_reserved()),
        device_used_bytes=whole - free,
        losses=[line.loss for line in lines],
    )


def row_lengths() -> list[int]:
    """Tokens of rows as in an instruction dataset: many short ones, and a few that are long."""
    draw = random.Random(0)
    middle = math.log(_MEAN_TOKENS) - _SPREAD**2 / 2
    drawn = (round(draw.lognormvariate(middle, _SPREAD)) for _ in range(_ROWS))
    return [min(max(length, 32), _MAX_TOKENS) for length in drawn]


def _line(name: str, folder: Path, base: Path, left_s: float) -> Line:
    settings = SETTINGS[name]
    if left_s <= 0:
        return Line(name=name, settings=settings, measured=None, failure="no time was left for it")
    recipe = resolve("rtx", settings=["epochs=1", "logging_steps=1", *settings])
    trainings.write_rows(stage_runs.begin_run(folder, recipe), row_lengths())
    try:
        measured = measure(
            folder, base, warm_up=_WARM_UP_STEPS, steps=_STEPS, timeout_s=min(left_s, _EACH_S)
        )
    except UserError as error:
        return Line(name=name, settings=settings, measured=None, failure=error.problems[0].what)
    return Line(name=name, settings=settings, measured=measured, failure=None)


def table(lines: list[Line]) -> Table:
    """A row for each setting, with its ratios to the first."""
    shown = Table("setting", box=None, pad_edge=False)
    for column in ("tokens/s", "ratio", "s/step", "step peak", "ratio", "reserved"):
        shown.add_column(column, justify="right")
    first = lines[0].measured
    for line in lines:
        found = line.measured
        if found is None:
            shown.add_row(line.name, f"[red]{line.failure}[/]")
            continue
        speed = found.tokens_per_s / first.tokens_per_s if first else math.nan
        memory = found.step_peak_bytes / first.step_peak_bytes if first else math.nan
        shown.add_row(
            line.name,
            f"{found.tokens_per_s:,.0f}",
            f"{speed:.2f}",
            f"{found.step_s:.2f}",
            f"{found.step_peak_bytes / 1e9:.2f} GB",
            f"{memory:.2f}",
            f"{found.peak_reserved_bytes / 1e9:.2f} GB",
        )
    return shown


def _compare(out: Path | None, in_all_s: float) -> int:
    import torch

    if not torch.cuda.is_available():
        print("no CUDA GPU is available: this benchmark is for machines with one", file=sys.stderr)
        return 1
    console = Console(highlight=False)
    ends_s = time.monotonic() + in_all_s
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as scratch:
        base = bases.qwen_shaped(Path(scratch))
        for number, name in enumerate(SETTINGS):
            folder = Path(scratch) / f"run-{number}"
            lines.append(_line(name, folder, base, ends_s - time.monotonic()))
            said = lines[-1].failure or "measured"
            console.print(f"{number + 1} of {len(SETTINGS)}  {name}: {said}", soft_wrap=True)
            if out:
                Figures(
                    device=torch.cuda.get_device_name(),
                    torch=torch.__version__,
                    cuda=str(torch.version.cuda),
                    lines=lines,
                ).write(out)
    console.print(table(lines))
    return int(any(line.failure for line in lines))


def main() -> None:
    """Make the base, measure each setting, print the table; or be one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--in-all-s", type=float, default=_IN_ALL_S, help="seconds for all of it")
    own = parser.add_argument_group("one measurement, started by the others")
    own.add_argument("--measure", type=Path)
    own.add_argument("--base", type=Path)
    for name in ("--warm-up", "--steps", "--limit"):
        own.add_argument(name, type=int, default=0)
    given = parser.parse_args()
    if given.measure is None:
        sys.exit(_compare(given.out, given.in_all_s))
    try:
        found = _measure_here(
            given.measure,
            given.base,
            warm_up=given.warm_up,
            steps=given.steps,
            limit_bytes=given.limit,
        )
    except UserError as error:
        sys.exit(error.text())
    print(found.model_dump_json())


if __name__ == "__main__":
    main()
