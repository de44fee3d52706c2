"""One stage: its key, whether it is up to date, running it and recording it.

Knows nothing of what a stage does. A stage is up to date when its record has the same key, what
it read is what the stages before it left, and what it left is still there to the byte.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launcher.code import code_digest
from launcher.digests import FileDigests
from launcher.display import Display
from launcher.engine.interface import Engine, Job, Mount
from trainer.contract import events
from trainer.contract import places as names
from trainer.contract.digest import digest_of_value, files_below
from trainer.contract.errors import ExitCode, Problem, UserError
from trainer.contract.manifest import CONTRACT_VERSION, StageRecord
from trainer.contract.recipe import SectionKind
from trainer.contract.whole_file import write_whole

_TAIL_LINES = 20


@dataclass(frozen=True)
class Stage:
    """What a stage reads and leaves. Its name is its module, its log and its line.

    `after` names the stages whose outputs it reads; `reads` the inputs of the run, which are
    mounted under these names; `leaves` its outputs, from the run's folder.
    """

    name: str
    section: type[SectionKind] | None
    after: tuple[str, ...]
    reads: tuple[str, ...]
    leaves: tuple[Path, ...]
    may_use_card: bool = False


class StageCrashed(Exception):
    """A stage ended otherwise than by its contract: a bug, or a kill from outside."""

    def __init__(self, stage: str, reason: str, log: Path) -> None:
        self.stage, self.reason, self.log = stage, reason, log
        super().__init__(f"{stage} {reason}")

    def tail(self) -> str:
        """The last lines of the stage's log."""
        if not self.log.exists():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])


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
            "after": {name: keys[name] for name in stage.after},
        }
    )


class RunFolder:
    """The folder of one run: the records of its stages, and their outputs."""

    def __init__(self, path: Path, digests: FileDigests) -> None:
        self.path = path
        self._digests = digests

    def record(self, stage: str) -> StageRecord | None:
        """What was written down of a stage, or None."""
        path = self._record_path(stage)
        return StageRecord.model_validate_json(path.read_bytes()) if path.exists() else None

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
        lock: str,
        device: str,
        mounts: tuple[Mount, ...],
        engine: Engine,
        display: Display,
    ) -> StageRecord:
        """Run the stage and record it.

        Raises:
            UserError: the stage named problems that a person can mend.
            StageCrashed: it ended in any other way.
        """
        self._record_path(stage.name).unlink(missing_ok=True)
        (self.path / names.MANIFEST).unlink(missing_ok=True)
        for output in stage.leaves:
            _remove(self.path / output)
        job = Job(
            module=f"trainer.{stage.name}",
            lock=lock,
            mounts=(Mount("run", self.path, writable=True), *mounts),
            log=self.path / names.LOGS / f"{stage.name}.log",
            card=stage.may_use_card and device == "cuda",
        )
        started = datetime.now(UTC)
        clock_s = time.monotonic()
        result = run_job(stage.name, job, engine, display)
        record = StageRecord(
            stage=stage.name,
            key=key,
            command=job.command(),
            engine=engine.name,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock_s, 3),
            inputs=self._inputs(stage),
            outputs=self._outputs(stage),
            result=result,
        )
        write_whole(self._record_path(stage.name), record.model_dump_json(indent=1) + "\n")
        return record

    def _record_path(self, stage: str) -> Path:
        return self.path / names.STAGES / f"{stage}.json"

    def _inputs(self, stage: Stage) -> dict[str, str]:
        records = {name: self.record(name) for name in stage.after}
        return {name: digest_of_value(r.outputs) for name, r in records.items() if r is not None}

    def _outputs(self, stage: Stage) -> dict[str, str]:
        found: dict[str, str] = {}
        for output in stage.leaves:
            place = self.path / output
            files = files_below(place) if place.is_dir() else [place]
            for file in files:
                if file.is_file():
                    found[file.relative_to(self.path).as_posix()] = self._digests.of(file)
        return found


def run_job(name: str, job: Job, engine: Engine, display: Display) -> dict[str, Any]:
    """Run a job with its line on the display and return what it found out.

    Raises:
        UserError: it named problems that a person can mend.
        StageCrashed: it ended in any other way.
        KeyboardInterrupt: it was asked to stop.
    """
    problems: list[Problem] = []
    result: dict[str, Any] = {}

    with display.working(name) as line:

        def on_event(event: events.Event) -> None:
            if isinstance(event, events.Failed):
                problems.extend(event.problems)
            elif isinstance(event, events.Result):
                result.update(event.values)
            else:
                line.on_event(event)

        code = engine.run(job, on_event, display)
        if code == ExitCode.DONE:
            return result
        if code == ExitCode.USER_CAN_MEND and problems:
            raise UserError(problems)
        if code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        raise StageCrashed(name, _ending(code), job.log)


def _ending(code: int) -> str:
    if code in (-9, 137):
        return "was killed from outside; the usual reason is that the memory ran out"
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with code {code}"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
