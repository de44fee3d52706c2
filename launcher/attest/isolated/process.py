"""One request on standard input, one reply on standard output.

The modules beside this one run in the environment `attest`, a process for each request. Of our own
code they import the contract and `launcher.attest.exchange` alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TypeVar

from pydantic import TypeAdapter

from contract.errors import Problem, UserError
from contract.record import Record

Request = TypeVar("Request", bound=Record)


def answer(kind: type[Request], do: Callable[[Request], Record]) -> None:
    """Read a request, do it, and write the reply, or what is wrong and its exit code."""
    request = kind.model_validate_json(sys.stdin.buffer.read())
    try:
        # Libraries print what they like.
        with redirect_stdout(sys.stderr):
            reply = do(request)
    except UserError as error:
        problems = TypeAdapter(list[Problem]).dump_json(list(error.problems))
        sys.stdout.buffer.write(problems)
        sys.exit(int(error.exit_code))
    sys.stdout.buffer.write(reply.model_dump_json().encode())
