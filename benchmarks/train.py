"""This project's trainer beside others on the same task: speed, memory, and what was learned.

`./invoke bench train`, or with arguments of its own `./invoke bench train --args "--rounds 1"`.
The rows are the first of gsm8k's training split; all trainers are told the same recipe, the
profile's with what `workspace.settings` changes, and are left at their own defaults in all else.
Each trains in a process of its own, in turn: every round has each of them once, and begins with
another one. What counts are the ratios to `trl sft` within a round.

Each trainer's environment is made from its lock in `benchmarks/peers/`; one that cannot be made, or
fails, is a line of the table. Ctrl-C prints what was measured so far.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.peers import environments, figures, workspace
from benchmarks.peers.figures import Figures, Line, Training
from benchmarks.peers.models import Score
from benchmarks.peers.process import last_words, measure
from benchmarks.peers.tools import REFERENCE, TOOLS, Tool
from benchmarks.peers.workspace import BASES, LOGS, ROWS_FILE, Workspace
from contract.atomic_write import atomic_write
from contract.digest import digest_of_file
from contract.errors import ExitCode, Problem, UserError, unknown_name
from contract.record import Record
from launcher.display import Display, duration, terminal
from launcher.error_messages import exit_on_error
from launcher.pipeline.training import this_machine
from launcher.project import ROOT, shown
from launcher.runtime.dependency_locks import pinned
from launcher.runtime.environment import ensure_environment
from launcher.runtime.gpus import detect_gpus

_ONE_TRAINING_S = 3 * 3600.0


class Counts(Record):
    """What `probe/sitecustomize.py` writes from inside a trainer's process."""

    batches: int
    trained_tokens: int
    tokens: int
    padded_tokens: int
    training_s: float
    gpu_peak_bytes: int


@dataclass
class Comparison:
    """Tools that take turns on one task."""

    tools: Sequence[Tool]
    work: Workspace
    pythons: dict[str, Path]
    threads: int
    lines: dict[str, Line]
    # By the digest of an adapter: most tools write the same one in every round.
    _scores: dict[str, Score] = field(default_factory=dict)

    def run(self, rounds: int, say: Callable[[str], None], after: Callable[[], object]) -> None:
        """Every tool in every round; what failed once is not tried again."""
        for number in range(1, rounds + 1):
            # Each begins in turn: a machine that warms up or slows down favours none.
            turn = (number - 1) % len(self.tools)
            for tool in (*self.tools[turn:], *self.tools[:turn]):
                if self.lines[tool.name].failure:
                    continue
                said = self._train(tool, number)
                say(f"round {number} of {rounds}  {tool.name}: {said}")
                after()

    def _train(self, tool: Tool, number: int) -> str:
        line = self.lines[tool.name]
        try:
            training = self._measured(tool, number)
        except UserError as error:
            problem = error.problems[0]
            self.lines[tool.name] = line.model_copy(update={"failure": problem.what})
            return f"{problem.what} (see {problem.where})"
        trainings = [*line.trainings, training]
        self.lines[tool.name] = line.model_copy(update={"trainings": trainings})
        return (
            f"{duration(training.wall_s)}, {training.rate:,.0f} completion tokens/s, "
            f"held-out loss {training.held_out_loss:.4f}"
        )

    def _measured(self, tool: Tool, number: int) -> Training:
        log = LOGS / f"{tool.name.replace(' ', '-').lower()}.log"
        with tempfile.TemporaryDirectory(dir=self.work.task.base.parent) as scratch:
            folder = Path(scratch)
            counts = folder / "counts.json"
            program, *words = tool.begin(self.work.task, folder)
            path = self.pythons[tool.name].with_name(program)
            try:
                usage = measure(
                    [str(path), *words],
                    folder=ROOT if tool.in_project else folder,
                    environment=workspace.environment(
                        folder,
                        self.work.task.recipe.device,
                        self.threads,
                        **workspace.probe(counts),
                    ),
                    log=log,
                    timeout_s=_ONE_TRAINING_S,
                )
            except FileNotFoundError:
                # A script names its interpreter by the folder in which it was made.
                raise UserError.one(
                    shown(path), f"{program} does not start: its environment was moved"
                ) from None
            if usage.timed_out:
                raise UserError.one(shown(log), f"took more than {_ONE_TRAINING_S / 3600:.0f} h")
            if usage.code:
                raise UserError.one(shown(log), last_words(log))
            if not counts.exists():
                raise UserError.one(shown(log), "ended well, and trained nothing")
            counted = Counts.read(counts)
            if not counted.trained_tokens:
                raise UserError.one(shown(log), "what it trained on could not be counted")
            adapter = find_adapter(folder)
            digest = digest_of_file(adapter)
            score = self._score(adapter.parent, digest)
        return Training(
            round=number,
            wall_s=usage.wall_s,
            cpu_s=usage.cpu_s,
            training_s=counted.training_s,
            peak_bytes=counted.gpu_peak_bytes or usage.peak_bytes,
            trained_tokens=counted.trained_tokens,
            tokens=counted.tokens,
            padded_tokens=counted.padded_tokens,
            held_out_loss=score.loss,
            adapter_parameters=score.adapter_parameters,
            adapter_sha256=digest,
        )

    def _score(self, adapter: Path, digest: str) -> Score:
        if digest not in self._scores:
            self._scores[digest] = score(self.work, adapter)
        return self._scores[digest]


def score(work: Workspace, adapter: Path | None) -> Score:
    """The held-out loss of the base, with an adapter where one is given.

    Raises:
        UserError: it cannot be loaded.
    """
    module = [sys.executable, "-m", "benchmarks.peers.models", "score"]
    given = [] if adapter is None else [adapter]
    workspace.run_step([*module, work.task.base, work.held_out, *given], "score")
    last = (LOGS / "score.log").read_text(encoding="utf-8").splitlines()[-1]
    return Score.model_validate_json(last)


def find_adapter(folder: Path) -> Path:
    """The weights of the adapter that a tool left last; those of a checkpoint lie deeper.

    Raises:
        UserError: there are none.
    """
    found = list(folder.rglob("adapter_model.safetensors"))
    if not found:
        raise UserError.one(shown(folder), "wrote no adapter")
    return min(found, key=lambda path: (len(path.parts), -path.stat().st_mtime))


def chosen(names: str) -> list[Tool]:
    """The tools of these names, which commas part; all for none.

    Raises:
        UserError: there is no such tool.
    """
    known = {tool.name.lower(): tool for tool in TOOLS}
    asked = [name.strip().lower() for name in names.split(",") if name.strip()]
    problems: list[Problem] = [
        unknown_name(name, known, kind="trainer", where="--only")
        for name in asked
        if name not in known
    ]
    if problems:
        raise UserError(problems)
    return [tool for name, tool in known.items() if not asked or name in asked]


def main() -> int:
    """Read the arguments, measure, and print and write the tables."""
    parser = argparse.ArgumentParser(
        prog="./invoke bench train --args",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--base", choices=BASES, default="smoke")
    parser.add_argument("--rounds", type=_at_least_one, default=5)
    parser.add_argument("--rows", type=_at_least_one, default=512, help="to train on")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=_at_least_one, default=2)
    parser.add_argument("--only", default="", metavar="NAMES", help="trainers, parted by commas")
    parser.add_argument("--data", type=Path, default=ROWS_FILE, help="gsm8k's training split")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the recipe, after those that are set for all; repeatable",
    )
    given = parser.parse_args()
    with exit_on_error(_leave):
        return _compare(given, chosen(given.only))


def _leave(message: str, code: int) -> SystemExit:
    print(message, file=sys.stderr)
    return SystemExit(code)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _compare(given: argparse.Namespace, tools: list[Tool]) -> int:
    console = terminal()
    rows = workspace.read_rows(given.data, given.rows)
    base = BASES[given.base]
    with tempfile.TemporaryDirectory(prefix="train-", dir=workspace.FOLDER) as scratch:
        work = workspace.make(
            Path(scratch),
            base,
            rows,
            python=_own_python(),
            device=given.device,
            threads=given.threads,
            own=given.set,
        )
        pythons, lines = _environments(tools, given.device)
        found = Figures(
            base=base.name,
            settings=given.set,
            rows=given.rows,
            rounds=given.rounds,
            device=given.device,
            threads=given.threads,
            machine=_machine(given.device),
            torch=pinned("rtx")["torch"],
            base_loss=score(work, None).loss,
            prepare_wall_s=work.prepare.wall_s,
            prepare_cpu_s=work.prepare.cpu_s,
            lines=[],
        )
        console.print(f"held-out loss of the base: {found.base_loss:.4f}")
        comparison = Comparison(tools, work, pythons, given.threads, lines)

        def keep() -> Figures:
            whole = found.model_copy(update={"lines": list(lines.values())})
            name = _files(whole)
            whole.write(name.with_suffix(".json"))
            atomic_write(name.with_suffix(".md"), figures.markdown(whole))
            return whole

        code = ExitCode.DONE
        try:
            comparison.run(given.rounds, lambda text: console.print(text, soft_wrap=True), keep)
        except KeyboardInterrupt:
            console.print("stopped; what was measured so far:")
            code = ExitCode.INTERRUPTED
        _print(console, keep(), work.trained_tokens)
    return int(code)


def _environments(tools: Sequence[Tool], device: str) -> tuple[dict[str, Path], dict[str, Line]]:
    """Each tool's Python, and its line: with a failure where it has none."""
    pythons, lines = {}, {}
    for tool in tools:
        failure = tool.impossible(device)
        if failure is None:
            try:
                pythons[tool.name] = (
                    environments.interpreter(tool.package, Display())
                    if tool.package
                    else _own_python()
                )
            except UserError as error:
                failure = f"could not be installed: {error.problems[0].what}"
        lines[tool.name] = Line(name=tool.name, version=tool.version, trainings=[], failure=failure)
    return pythons, lines


def _own_python() -> Path:
    return ensure_environment("rtx", ["rtx"], Display())


def _machine(device: str) -> str:
    here = this_machine()
    cards = [gpu.name for gpu in detect_gpus()] if device == "cuda" else []
    return "; ".join([*cards, f"{here.cores} x {here.processor}"])


def _files(whole: Figures) -> Path:
    """Where the figures are written, without a suffix."""
    return workspace.FOLDER / f"train-{whole.base}{'-gpu' if whole.device == 'cuda' else ''}"


def _print(console: Console, whole: Figures, prepared_tokens: int) -> None:
    if any(line.trainings for line in whole.lines):
        console.print(figures.terminal_table(whole.lines))
    for text in figures.failures(whole.lines):
        console.print(text, soft_wrap=True)
    for text in figures.differences(whole.lines, prepared_tokens):
        console.print(text, soft_wrap=True)
    name = _files(whole)
    console.print(f"medians; ratios to {REFERENCE} within a round", soft_wrap=True)
    console.print(
        f"affineur's rows were prepared in {whole.prepare_wall_s:.1f} s before "
        f"({whole.prepare_cpu_s:.1f} s of the processor's); the others do so in their own process",
        soft_wrap=True,
    )
    console.print(f"written to {shown(name)}.md and .json", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
