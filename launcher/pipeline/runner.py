"""Bring a stage up to date: the one way in which any stage of the graph runs and is recorded.

Knows nothing of what a stage does. A stage is up to date when its record has the same key, what
it read is what the stages before it wrote, and what it wrote is still there to the byte.

A stage's outputs are a transaction. It only reads its folder and writes into a work folder; what
it wrote is checked and moved into its folder when it ended well, with what it read unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue, ValidationError

from contract import paths
from contract.digest import digest_of_value, files_below
from contract.errors import ExitCode, UserError
from contract.events import Metrics
from contract.manifest import ImageRecord, StageRecord
from contract.results.table import RESULTS
from launcher.display import Display
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.heard_events import HeardEvents
from launcher.pipeline.sources import Sources, check_unchanged
from launcher.pipeline.stage_ends import StageCrashed, end_of, killed
from launcher.pipeline.stages import Input, KeyParts, Stage
from launcher.pipeline.work_folder import WorkFolder
from launcher.runtime.engine import Engine, Job, Mount
from launcher.runtime.file_stamp import Stamps, stamps


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """What a run gives to all of its stages.

    Attributes:
        lock: the dependency lock of the environment or image that they run in.
        inputs: what they may read, by name.
        decided_by: what each stage's key is the digest of, by the stage's name, for its record.
        gpu: whether a stage that can use a GPU gets one.
        exporter: whether stages that read llama.cpp's parts run in the exporter image.
        network: whether they may use the network.
        secrets: what they are told by name, and what stands in no record.
        labels: are put on containers, for people.
        on_metrics: is told what a training measures.
    """

    lock: str
    inputs: Mapping[str, Input] = field(default_factory=dict)
    decided_by: Mapping[str, KeyParts] = field(default_factory=dict)
    gpu: bool = False
    exporter: bool = False
    network: bool = False
    secrets: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    on_metrics: Callable[[Metrics], None] = lambda _: None


@dataclass(frozen=True)
class _Said:
    """What a job that went well said: what it found out, and which Python it ran on."""

    result: dict[str, JsonValue]
    python: str | None


@dataclass(frozen=True, kw_only=True)
class _Finished(_Said):
    """A job that went well, as its record has it."""

    command: list[str]
    image: ImageRecord | None
    started: datetime
    seconds: float


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
        """Forget the stage: from here on nothing that it wrote counts as finished.

        The files stay until new ones take their place.
        """
        self._record_path(stage.name).unlink(missing_ok=True)
        (self.path / paths.MANIFEST).unlink(missing_ok=True)

    def write_record(self, record: StageRecord) -> None:
        """Write it whole; its being there says that the stage is finished."""
        record.write(self._record_path(record.stage))

    def upstream_digests(self, stage: Stage) -> dict[str, str]:
        """A digest of each upstream stage's outputs, as its record has them."""
        records = {name: self._upstream_record(name) for name in stage.upstream}
        return {name: digest_of_value(r.outputs) for name, r in records.items() if r is not None}

    def upstream_files(self, stage: Stage) -> list[Path]:
        """The files that the upstream stages wrote."""
        files = []
        for upstream in stage.upstream:
            for folder in (self, self._upstream):
                if folder is not None and (record := folder.record(upstream)) is not None:
                    files += [folder.path / name for name in record.outputs]
                    break
        return files

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
        """Nothing runs yet; the keys are those of the code as it is now."""
        self._folder = folder
        self._context = context
        self._engine = engine
        self._display = display
        self._sources = Sources(context.lock)

    def bring_up_to_date(self, stage: Stage, key: str) -> bool:
        """Run the stage unless it is up to date, and say which; True where it ran.

        Raises:
            UserError: the stage named problems that a person can fix.
            StageCrashed: it ended in any other way.
        """
        if self._folder.is_current(stage, key):
            # A launcher that was killed right after the record left it.
            WorkFolder(self._folder.path, stage).remove()
            self._display.up_to_date(stage.name)
            return False
        self.run(stage, key)
        return True

    def run(self, stage: Stage, key: str) -> StageRecord:
        """Run the stage, take what it wrote, and record it.

        Raises:
            UserError: the stage named problems that a person can fix, or wrote what is no plain
                file, or something that it read was changed meanwhile.
            StageCrashed: it ended in any other way, or its result has other keys than its type.
        """
        self._folder.clear(stage)
        work = WorkFolder(self._folder.path, stage)
        work.open(key)
        read = self._stamps(stage)
        try:
            finished = self._run_in(work, stage)
        except BaseException:
            if not stage.continues:
                work.remove()
            raise
        try:
            record = self._recorded(work, stage, key=key, finished=finished, read=read)
        except BaseException as error:
            # What could be continued goes only with what it came of, or led to, being refused.
            if not stage.continues or isinstance(error, UserError):
                work.remove()
            raise
        work.remove()
        return record

    def _recorded(
        self, work: WorkFolder, stage: Stage, *, key: str, finished: _Finished, read: Stamps
    ) -> StageRecord:
        self._check_result(stage, finished)
        check_unchanged(stage.name, read)
        work.adopt()
        record = StageRecord(
            stage=stage.name,
            key=key,
            decided_by=self._context.decided_by.get(stage.name, {}),
            command=finished.command,
            engine=self._engine.name,
            image=finished.image,
            python=finished.python,
            started=finished.started.isoformat(timespec="seconds"),
            seconds=finished.seconds,
            inputs=self._folder.upstream_digests(stage),
            outputs=self._folder.output_digests(stage),
            result=finished.result,
        )
        self._folder.write_record(record)
        return record

    def _check_result(self, stage: Stage, finished: _Finished) -> None:
        # A renamed key is found here, and not by whoever reads it later.
        try:
            RESULTS[stage.name].model_validate(finished.result)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
            reason = f"reported something else than its result ({what})"
            raise StageCrashed(stage.name, reason, self._log(stage)) from None

    def _log(self, stage: Stage) -> Path:
        return self._folder.path / paths.LOGS / f"{stage.name}.log"

    def _stamps(self, stage: Stage) -> Stamps:
        """Of all files that the stage reads: its inputs' as they were when they were digested."""
        found = stamps(self._folder.upstream_files(stage))
        for name in stage.inputs:
            if name in self._context.inputs:
                found.update(self._context.inputs[name].stamps)
        return found

    def _run_in(self, work: WorkFolder, stage: Stage) -> _Finished:
        job = self._job(stage, work)
        # Before the clock starts: a build is not the stage's time.
        image = self._engine.image(job.lock, self._display, exporter=job.exporter)
        if image is None:
            self._sources.copy(work.code)
            job = replace(job, code_folder=work.code)
        else:
            job = replace(job, image=image.digest)
        started = datetime.now(UTC)
        clock_s = time.monotonic()
        said = self._run_job(stage.name, job, work)
        return _Finished(
            command=job.command(),
            image=image,
            started=started,
            seconds=round(time.monotonic() - clock_s, 3),
            python=said.python,
            result=said.result,
        )

    def _job(self, stage: Stage, work: WorkFolder) -> Job:
        context, folder = self._context, self._folder.path
        mounts = [Mount("run", folder), Mount("out", work.path, writable=True)]
        for name in stage.inputs:
            found = context.inputs.get(name)
            if found is not None and found.locate is not None:
                mounts.append(Mount(name, found.locate()))
        return Job(
            module=f"trainer.{stage.name}",
            lock=context.lock,
            mounts=tuple(mounts),
            log=self._log(stage),
            network=context.network,
            gpu=stage.uses_gpu and context.gpu,
            exporter=stage.reads_exporter and context.exporter,
            secrets=context.secrets,
            labels=context.labels,
        )

    def _run_job(self, name: str, job: Job, work: WorkFolder) -> _Said:
        """Run a job with its line on the display and return what it found out.

        One that is killed for lack of memory is started again, if it said what it can do with less.

        Raises:
            UserError: it named problems that a person can fix, or its code was edited, or it ended
                from outside.
            StageCrashed: it ended in any other way.
            KeyboardInterrupt: it was asked to stop.
        """
        with self._display.working(name) as line:
            while True:
                # Once it has started, the image or the copy that it runs from is there.
                heard = HeardEvents(
                    lambda: self._sources.check(name), self._context.on_metrics, line.on_event
                )
                ending = self._engine.run(job, heard.on_event, self._display)
                if ending.code == ExitCode.DONE:
                    return _Said(heard.result, heard.python)
                if ending.code == ExitCode.USER_ERROR and heard.failed and heard.failed.problems:
                    raise heard.failed
                if ending.code == ExitCode.INTERRUPTED:
                    raise KeyboardInterrupt
                if not ending.memory_ran_out:
                    raise end_of(name, ending, job.log)
                if heard.fallback is None:
                    # Whoever gives it more memory is to have what the recipe says.
                    work.forget_fallback()
                    raise end_of(name, ending, job.log)
                work.keep_fallback(heard.fallback)
                self._display.note(
                    f"out of memory ({name} {killed(ending)}); going on with {heard.fallback.text}"
                )
