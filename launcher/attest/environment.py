"""Ask the environment `attest`, whose libraries are not the launcher's, to do one thing."""

from __future__ import annotations

import subprocess
from typing import TypeVar

from pydantic import TypeAdapter

from contract.child_environment import Purpose, child_environment
from contract.errors import ExitCode, Problem, UserError
from contract.record import Record
from launcher.attest.exchange import AttestationFailed
from launcher.display import Display
from launcher.project import ROOT
from launcher.runtime.environment import ensure_environment

LOCK = "attest"
_PACKAGE = "launcher.attest.isolated"
_PROBLEMS = TypeAdapter(list[Problem])
Reply = TypeVar("Reply", bound=Record)


def ask(module: str, request: Record, reply: type[Reply], display: Display) -> Reply:
    """Have a module of `launcher/attest/isolated/` answer a request.

    It is made on first use. What is said to it is on its standard input: a passphrase stands in no
    command and in no environment. It is given no proxy and no token, and needs no network.

    Raises:
        UserError: what a person can fix.
        AttestationFailed: a check failed.
    """
    python = ensure_environment(LOCK, [LOCK], display)
    done = subprocess.run(
        [str(python), "-m", f"{_PACKAGE}.{module}"],
        cwd=ROOT,
        env=child_environment(Purpose.STAGE, PYTHONHASHSEED="0"),
        input=request.model_dump_json().encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode == ExitCode.DONE:
        return reply.model_validate_json(done.stdout)
    for failure in (UserError, AttestationFailed):
        if done.returncode == failure.exit_code and done.stdout:
            raise failure(_PROBLEMS.validate_json(done.stdout))
    log = done.stderr.decode(errors="replace")
    raise RuntimeError(f"{_PACKAGE}.{module} ended with exit code {done.returncode}:\n{log}")
