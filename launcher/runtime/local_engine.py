"""The engine `local`: a process in an environment made from the lock. Needs Python alone."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

from contract.events import Event, parse_event
from launcher.display import Display
from launcher.project import ROOT
from launcher.runtime.engine import CERTIFICATES, STOPPING, TIME_TO_STOP_S, Ending, Job
from launcher.runtime.environment import ensure_environment, has_environment
from launcher.runtime.logged_process import open_log

# What a stage may know of this machine's environment. All else is decided by the recipe.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")


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

    def run(self, job: Job, on_event: Callable[[Event], None], display: Display) -> Ending:
        """See `Engine.run`. Standard error goes to the job's log."""
        python = ensure_environment(job.lock, [job.lock], display)
        command = [str(python), "-m", job.module]
        for mount in job.mounts:
            command += [mount.flag, str(mount.source)]
        with (
            open_log(job.log) as log,
            subprocess.Popen(
                command,
                cwd=job.code_folder or ROOT,
                env=_process_environment(job),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                errors="replace",
                # A Ctrl-C in the terminal reaches us alone: we stop the job in good order.
                start_new_session=True,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    event = parse_event(line)
                    if event is None:
                        log.write(line)
                    else:
                        on_event(event)
                return Ending(process.wait())
            except BaseException:
                _stop(process, display)
                raise


def _process_environment(job: Job) -> dict[str, str]:
    names = _PASSED_ON + (("SSL_CERT_DIR", *CERTIFICATES) if job.network else ())
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, **job.secrets, **job.environment_variables()}


def _stop(process: subprocess.Popen[str], display: Display) -> None:
    if process.poll() is not None:
        return
    display.note(STOPPING)
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(TIME_TO_STOP_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
