"""One stage: its key, whether it is up to date, running it and recording it.

Knows nothing of what a stage does. A stage is up to date when its record has the same key, what
it read is what the stages before it left, and what it left is still there to the byte.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from contract import events, paths
from contract.digest import digest_of_value, files_below
from contract.errors import AffineurError, ExitCode, Problem, UserError
from contract.manifest import CONTRACT_VERSION, StageRecord
from contract.recipe import SectionKind
from contract.results import RESULTS, ResultType
from launcher.display import Display
from launcher.pipeline.code_digest import code_digest
from launcher.pipeline.file_digests import FileDigests
from launcher.project import shown
from launcher.runtime.engine import Ending, Engine, Job, Mount

_TAIL_LINES = 20
_ENDED_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Stage:
    """What a stage reads and leaves. Its name is its module, its log and its line.

    `after` names the stages whose outputs it reads; `reads` the inputs of the run, which are
    mounted under these names; `leaves` its outputs, from the run's folder, with `*` for what the
    recipe decides.
    """

    name: str
    section: type[SectionKind] | None
    after: tuple[str, ...]
    reads: tuple[str, ...]
    leaves: tuple[str, ...]
    uses_gpu: bool = False


@dataclass(frozen=True)
class Given:
    """What a run gives to its stages: the lock, the device, what they may read, their labels.

    `exporter`: the stage runs where llama.cpp's compiled tools are.
    """

    lock: str
    device: str
    mounts: tuple[Mount, ...] = ()
    exporter: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


class StageCrashed(AffineurError):
    """A stage ended otherwise than by its contract: a bug, or a kill from outside."""

    def __init__(self, stage: str, reason: str, log: Path) -> None:
        self.stage, self.reason, self.log = stage, reason, log
        super().__init__(f"{stage} {reason}")

    def text(self) -> str:
        """The last lines of the stage's log, what ended, and where the rest of the log is."""
        lines = []
        if self.log.exists():
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(lines[-_TAIL_LINES:])
        return (f"{tail}\n\n" if tail else "") + f"{super().text()}. Its log: {shown(self.log)}"


def stage_key(
    stage: Stage,
    section: Mapping[str, Any],
    lock_digest: str,
    inputs: Mapping[str, str],
    keys: Mapping[str, str],
) -> str:
    """The digest of all that decides the stage's outputs; known before anything runs.

    Args:
        section: the recipe's part that the stage reads, as plain values.
        inputs: name of an input -> digest of what it holds.
        keys: name of an earlier stage -> its key.
    """
    return digest_of_value(
        {
            "contract": CONTRACT_VERSION,
            "stage": stage.name,
            "recipe": dict(section),
            "code": code_digest(f"trainer.{stage.name}"),
            "lock": lock_digest,
            "inputs": {name: inputs[name] for name in stage.reads if name in inputs},
            "after": {name: keys[name] for name in stage.after if name in keys},
        }
    )


class RunFolder:
    """The folder of one run: the records of its stages, and their outputs."""

    def __init__(self, path: Path, digests: FileDigests) -> None:
        self.path = path
        self._digests = digests

    def record(self, stage: str) -> StageRecord | None:
        """What was written down of a stage, or None; another version's record is none."""
        try:
            return StageRecord.read(self._record_path(stage))
        except (FileNotFoundError, UserError):
            return None

    def is_current(self, stage: Stage, key: str) -> bool:
        """Whether the stage need not run."""
        record = self.record(stage.name)
        return (
            record is not None
            and record.key == key
            and record.inputs == self._inputs(stage)
            and record.outputs == self._outputs(stage)
        )

    def run(
        self,
        stage: Stage,
        key: str,
        given: Given,
        engine: Engine,
        display: Display,
    ) -> StageRecord:
        """Run the stage and record it.

        Raises:
            UserError: the stage named problems that a person can mend.
            StageCrashed: it ended in any other way.
        """
        self._record_path(stage.name).unlink(missing_ok=True)
        (self.path / paths.MANIFEST).unlink(missing_ok=True)
        for output in self._left(stage):
            _remove(output)
        job = Job(
            module=f"trainer.{stage.name}",
            lock=given.lock,
            mounts=(Mount("run", self.path, writable=True), *given.mounts),
            log=self.path / paths.LOGS / f"{stage.name}.log",
            card=stage.uses_gpu and given.device == "cuda",
            exporter=given.exporter,
            labels=given.labels,
        )
        # Before the clock starts: a build is not the stage's time.
        image = engine.image(given.lock, display, exporter=given.exporter)
        started = datetime.now(UTC)
        clock_s = time.monotonic()
        result = run_job(RESULTS[stage.name], job, engine, display)
        record = StageRecord(
            stage=stage.name,
            key=key,
            command=job.command(),
            engine=engine.name,
            image=image,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock_s, 3),
            inputs=self._inputs(stage),
            outputs=self._outputs(stage),
            result=result.model_dump(mode="json"),
        )
        record.write(self._record_path(stage.name))
        return record

    def _record_path(self, stage: str) -> Path:
        return self.path / paths.STAGES / f"{stage}.json"

    def _inputs(self, stage: Stage) -> dict[str, str]:
        records = {name: self.record(name) for name in stage.after}
        return {name: digest_of_value(r.outputs) for name, r in records.items() if r is not None}

    def _outputs(self, stage: Stage) -> dict[str, str]:
        found: dict[str, str] = {}
        for place in self._left(stage):
            for file in files_below(place) if place.is_dir() else [place]:
                found[file.relative_to(self.path).as_posix()] = self._digests.of(file)
        return found

    def _left(self, stage: Stage) -> list[Path]:
        """The outputs of the stage that are there."""
        return [place for output in stage.leaves for place in sorted(self.path.glob(output))]


def run_job(kind: type[ResultType], job: Job, engine: Engine, display: Display) -> ResultType:
    """Run a stage's job with its line on the display and return what it found out.

    Raises:
        UserError: it named problems that a person can mend.
        StageCrashed: it ended in any other way.
        KeyboardInterrupt: it was asked to stop.
        ValidationError: its result has other keys than its type (a bug of the stage).
    """
    name = kind.stage
    problems: list[Problem] = []
    values: dict[str, JsonValue] = {}

    with display.working(name) as line:

        def on_event(event: events.Event) -> None:
            if isinstance(event, events.Failed):
                problems.extend(event.problems)
            elif isinstance(event, events.Result):
                values.update(event.values)
            else:
                line.on_event(event)

        ending = engine.run(job, on_event, display)
        if ending.code == ExitCode.DONE:
            return kind.model_validate(values)
        if ending.code == ExitCode.USER_ERROR and problems:
            raise UserError(problems)
        if ending.code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        if ending.memory_ran_out or -ending.code in _ENDED_FROM_OUTSIDE:
            raise _ended_from_outside(name, ending)
        raise StageCrashed(name, _ending(ending.code), job.log)


def _ended_from_outside(name: str, ending: Ending) -> UserError:
    again = "Finished stages are kept: the same command goes on from them."
    less = "Take a smaller batch_size or max_length, or give it more memory."
    if ending.memory_ran_out:
        return UserError.one(name, "was killed because its memory ran out", f"{less} {again}")
    number = -ending.code
    how = f"was ended from outside by signal {number} (exit code {128 + number})"
    if number == signal.SIGKILL:
        how += ": by hand, or by the kernel because this machine's memory ran out (dmesg says)"
    return UserError.one(name, how, f"In the latter case: {less} {again}" if number == 9 else again)


def _ending(code: int) -> str:
    if code == -signal.SIGSEGV:
        return f"ended by a segmentation fault (exit code {128 - code})"
    if code < 0:
        return f"was ended by signal {-code} (exit code {128 - code})"
    return f"ended with code {code}"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
