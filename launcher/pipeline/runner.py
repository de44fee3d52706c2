"""Bring a stage up to date: the one way in which any stage of the graph runs and is recorded.

Knows nothing of what a stage does. A stage is up to date when its record has the same key, what
it read is what the stages before it wrote, and what it wrote is still there to the byte.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from contract import events, paths
from contract.digest import digest_of_value, files_below
from contract.errors import AffineurError, ExitCode, UserError
from contract.manifest import StageRecord
from contract.results.table import RESULTS
from launcher.display import Display
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.stages import Input, Stage
from launcher.project import shown
from launcher.runtime.engine import Ending, Engine, Job, Mount

_TAIL_LINES = 20
_ENDED_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """What a run gives to all of its stages.

    Attributes:
        lock: the dependency lock of the environment or image that they run in.
        inputs: what they may read, by name.
        gpu: whether a stage that can use a GPU gets one.
        exporter: whether stages that read llama.cpp's parts run in the exporter image.
        network: whether they may use the network.
        secrets: environment variables that stand in no record.
        labels: are put on containers, for people.
    """

    lock: str
    inputs: Mapping[str, Input] = field(default_factory=dict)
    gpu: bool = False
    exporter: bool = False
    network: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict)
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
        return (f"{tail}\n\n" if tail else "") + f"{super().text()}. Log: {shown(self.log)}"


@dataclass(frozen=True)
class _Finished:
    """What a job that went well said: what it found out, and which Python it ran on."""

    result: dict[str, JsonValue]
    python: str | None


class StageFolder:
    """A folder that stages write to: their records, and their outputs."""

    def __init__(
        self, path: Path, digests: FileDigests, upstream: StageFolder | None = None
    ) -> None:
        """Look at a folder, which need not exist yet.

        Args:
            upstream: another folder, with stages that those of this one stand on.
        """
        self.path = path
        self._digests = digests
        self._upstream = upstream

    def record(self, stage: str) -> StageRecord | None:
        """What was recorded of a stage, or None; another version's record is none."""
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
            and record.inputs == self.upstream_digests(stage)
            and record.outputs == self.output_digests(stage)
        )

    def clear(self, stage: Stage) -> None:
        """Forget the stage: from here on nothing that it wrote counts as finished."""
        self._record_path(stage.name).unlink(missing_ok=True)
        (self.path / paths.MANIFEST).unlink(missing_ok=True)
        if not stage.continues:
            for output in self._existing_outputs(stage):
                _remove(output)

    def write_record(self, record: StageRecord) -> None:
        """Write it whole; its being there says that the stage is finished."""
        record.write(self._record_path(record.stage))

    def upstream_digests(self, stage: Stage) -> dict[str, str]:
        """A digest of each upstream stage's outputs, as its record has them."""
        records = {name: self._upstream_record(name) for name in stage.upstream}
        return {name: digest_of_value(r.outputs) for name, r in records.items() if r is not None}

    def output_digests(self, stage: Stage) -> dict[str, str]:
        """The digest of every file that the stage wrote, by its path in this folder."""
        found: dict[str, str] = {}
        for output in self._existing_outputs(stage):
            for file in files_below(output) if output.is_dir() else [output]:
                found[file.relative_to(self.path).as_posix()] = self._digests.of(file)
        return found

    def _record_path(self, stage: str) -> Path:
        return self.path / paths.STAGES / f"{stage}.json"

    def _upstream_record(self, stage: str) -> StageRecord | None:
        record = self.record(stage)
        if record is None and self._upstream is not None:
            return self._upstream.record(stage)
        return record

    def _existing_outputs(self, stage: Stage) -> list[Path]:
        return [path for output in stage.outputs for path in sorted(self.path.glob(output))]


class StageRunner:
    """Brings stages up to date in one folder, on one engine."""

    def __init__(
        self, folder: StageFolder, context: StageContext, *, engine: Engine, display: Display
    ) -> None:
        self._folder = folder
        self._context = context
        self._engine = engine
        self._display = display

    def bring_up_to_date(self, stage: Stage, key: str) -> bool:
        """Run the stage unless it is up to date, and say which; True where it ran.

        Raises:
            UserError: the stage named problems that a person can fix.
            StageCrashed: it ended in any other way.
        """
        if self._folder.is_current(stage, key):
            self._display.up_to_date(stage.name)
            return False
        self.run(stage, key)
        return True

    def run(self, stage: Stage, key: str) -> StageRecord:
        """Run the stage and record it.

        Raises:
            UserError: the stage named problems that a person can fix.
            StageCrashed: it ended in any other way.
            ValidationError: its result has other keys than its type (a bug of the stage).
        """
        folder = self._folder
        folder.clear(stage)
        job = self._job(stage)
        # Before the clock starts: a build is not the stage's time.
        image = self._engine.image(job.lock, self._display, exporter=job.exporter)
        started = datetime.now(UTC)
        clock_s = time.monotonic()
        finished = self._run_job(stage.name, job)
        # A renamed key is found here, and not by whoever reads it later.
        RESULTS[stage.name].model_validate(finished.result)
        record = StageRecord(
            stage=stage.name,
            key=key,
            command=job.command(),
            engine=self._engine.name,
            image=image,
            python=finished.python,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock_s, 3),
            inputs=folder.upstream_digests(stage),
            outputs=folder.output_digests(stage),
            result=finished.result,
        )
        folder.write_record(record)
        return record

    def _job(self, stage: Stage) -> Job:
        context, folder = self._context, self._folder.path
        mounts = [Mount("run", folder, writable=True)]
        for name in stage.inputs:
            found = context.inputs.get(name)
            if found is not None and found.locate is not None:
                mounts.append(Mount(name, found.locate()))
        return Job(
            module=f"trainer.{stage.name}",
            lock=context.lock,
            mounts=tuple(mounts),
            log=folder / paths.LOGS / f"{stage.name}.log",
            network=context.network,
            gpu=stage.uses_gpu and context.gpu,
            exporter=stage.reads_exporter and context.exporter,
            secrets=context.secrets,
            labels=context.labels,
        )

    def _run_job(self, name: str, job: Job) -> _Finished:
        """Run a job with its line on the display and return what it found out.

        Raises:
            UserError: it named problems that a person can fix.
            StageCrashed: it ended in any other way.
            KeyboardInterrupt: it was asked to stop.
        """
        failed: UserError | None = None
        result: dict[str, JsonValue] = {}
        python = None

        with self._display.working(name) as line:

            def on_event(event: events.Event) -> None:
                nonlocal failed, python
                if isinstance(event, events.Started):
                    python = event.python
                elif isinstance(event, events.Failed):
                    failed = UserError(event.problems, event.more)
                elif isinstance(event, events.Result):
                    result.update(event.values)
                else:
                    line.on_event(event)

            ending = self._engine.run(job, on_event, self._display)
            if ending.code == ExitCode.DONE:
                return _Finished(result, python)
            if ending.code == ExitCode.USER_ERROR and failed:
                raise failed
            if ending.code == ExitCode.INTERRUPTED:
                raise KeyboardInterrupt
            if ending.memory_ran_out or -ending.code in _ENDED_FROM_OUTSIDE:
                raise _ended_from_outside(name, ending)
            raise StageCrashed(name, _ending(ending.code), job.log)


def _ended_from_outside(name: str, ending: Ending) -> UserError:
    again = "Finished stages are kept; run the same command to resume."
    less = "Use a smaller batch_size or max_length, or give it more memory."
    if ending.memory_ran_out:
        return UserError.one(name, "was killed because it ran out of memory", f"{less} {again}")
    number = -ending.code
    how = f"was terminated by signal {number} (exit code {128 + number})"
    if number == signal.SIGKILL:
        how += ", by hand or by the kernel because this machine ran out of memory (see dmesg)"
    return UserError.one(name, how, f"In the latter case: {less} {again}" if number == 9 else again)


def _ending(code: int) -> str:
    if code == -signal.SIGSEGV:
        return f"crashed with a segmentation fault (exit code {128 - code})"
    if code < 0:
        return f"was terminated by signal {-code} (exit code {128 - code})"
    return f"exited with code {code}"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
