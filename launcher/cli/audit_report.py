"""An audit for people and for programs."""

from __future__ import annotations

from contract.errors import ExitCode
from launcher.attest.findings import Audit
from launcher.display import Display


def show(audit: Audit, display: Display, *, as_json: bool) -> None:
    """Print a line for each input that no digest pins, or one sentence where there is none.

    Raises:
        SystemExit: with code 3, where there is one.
    """
    if as_json:
        print(audit.model_dump_json(indent=1))
    else:
        _print(audit)
    for remark in audit.remarks:
        display.note(remark)
    if audit.unpinned:
        raise SystemExit(int(ExitCode.GATE_REFUSED))


def _print(audit: Audit) -> None:
    for problem in audit.unpinned:
        print(problem)
    if not audit.unpinned:
        print(f"Every input is pinned by digest: {len(audit.pinned)} of them (--json lists each).")
