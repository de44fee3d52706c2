"""The engine `local`: a process in an environment made from the lock. Needs Python alone."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from contract.child_environment import Purpose, child_environment
from contract.events import Event, parse_event
from contract.launch import Launch
from launcher.display import Display
from launcher.interruption import deferred, killed_at_once
from launcher.project import ROOT
from launcher.runtime.engine import STOPPING, TIME_TO_STOP_S, Ending, Job
from launcher.runtime.environment import ensure_environment, has_environment
from launcher.runtime.exclusive_lock import held_descriptors
from launcher.runtime.logged_process import open_log
from launcher.runtime.oom_kills import oom_kills


class LocalEngine:
    """Runs each job as a child process on this machine."""

    name = "local"

    def image(self, _lock: str, _display: Display, *, exporter: bool = False) -> None:
        """See `Engine.image`."""
        return

    def is_ready(self, lock: str, *, exporter: bool = False) -> bool:
        """See `Engine.is_ready`."""
        del exporter
        return has_environment(lock, [lock])

    def has_image(self, _digest: str) -> bool:
        """See `Engine.has_image`."""
        return False

    def run(self, job: Job, on_event: Callable[[Event], None], display: Display) -> Ending:
        """See `Engine.run`. Standard error goes to the job's log."""
        python = ensure_environment(job.lock, [job.lock], display)
        command = [str(python), "-m", job.module]
        for mount in job.mounts:
            command += [mount.flag, str(mount.source)]
        process = None
        with open_log(job.log) as log:
            try:
                with deferred():
                    process = _started(command, job, log.buffer)
                return _follow(process, job, on_event, log.buffer)
            except BaseException:
                if process is not None:
                    _stop(process, display)
                raise
            finally:
                if process is not None:
                    _end(process)


def _started(command: list[str], job: Job, log: BinaryIO) -> subprocess.Popen[bytes]:
    purpose = Purpose.NETWORK_STAGE if job.network else Purpose.STAGE
    return subprocess.Popen(
        command,
        cwd=job.code_folder or ROOT,
        env=child_environment(purpose, **job.environment_variables()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        # Where we are killed, the folder stays held until the job has ended.
        pass_fds=held_descriptors(),
        # A Ctrl-C in the terminal reaches us alone: we stop the job in good order.
        start_new_session=True,
    )


def _follow(
    process: subprocess.Popen[bytes], job: Job, on_event: Callable[[Event], None], log: BinaryIO
) -> Ending:
    killed_before = oom_kills()
    assert process.stdin is not None
    assert process.stdout is not None
    # It stays open: its end is how the job hears that we are gone.
    with suppress(BrokenPipeError):
        process.stdin.write(Launch.line(job.secrets))
        process.stdin.flush()
    with killed_at_once(lambda: _signal_group(process, signal.SIGKILL)):
        for line in process.stdout:
            event = parse_event(line.decode(errors="replace"))
            if event is None:
                log.write(line)
                log.flush()
            else:
                on_event(event)
        _wait_unreaped(process)
    # What it started may have outlived it, if it was killed; its group is still nobody else's.
    _signal_group(process, signal.SIGKILL)
    code = process.wait()
    # A person may send SIGKILL as well. Only the kernel counts what it kills for lack of memory.
    return Ending(code, memory_ran_out=code == -signal.SIGKILL and oom_kills() > killed_before)


def _stop(process: subprocess.Popen[bytes], display: Display) -> None:
    if process.poll() is not None:
        return
    display.note(STOPPING)
    _signal_group(process, signal.SIGTERM)
    with (
        killed_at_once(lambda: _signal_group(process, signal.SIGKILL)),
        suppress(subprocess.TimeoutExpired),
    ):
        process.wait(TIME_TO_STOP_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Whatever happened: it has ended, and its pipes are closed."""
    if process.poll() is None:
        _signal_group(process, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


def _wait_unreaped(process: subprocess.Popen[bytes]) -> None:
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    # Once it has been waited for, its number may be another's.
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
