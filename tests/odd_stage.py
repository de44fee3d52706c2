"""A stage that does what `code.py` in its run's folder says; for tests of what starts stages.

It comes in by the real entry point: `python -m tests.odd_stage --run DIR`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from contract.paths import StagePaths
from trainer.entrypoint import Reporter, run_stage_with_secrets


def stage(stage_paths: StagePaths, reporter: Reporter, secrets: Mapping[str, str]) -> None:
    """Run the code, with what it may want to use."""
    names = {
        **{"run": stage_paths.run, "reporter": reporter, "secrets": secrets, "ready": ready},
        **{"os": os, "signal": signal, "subprocess": subprocess, "sys": sys, "time": time},
    }
    exec((stage_paths.run / "code.py").read_text(), names)


def ready(run: Path, name: str = "ready") -> None:
    """Say to a test, which waits for the file, that this point is reached, and who is there."""
    (run / f"{name}.part").write_text(str(os.getpid()))
    (run / f"{name}.part").rename(run / name)


if __name__ == "__main__":
    run_stage_with_secrets(stage)
