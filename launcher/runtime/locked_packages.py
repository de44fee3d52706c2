"""Fetch a package's archive by the hash in a lock, for the files in it: nothing is installed."""

from __future__ import annotations

import sys
from pathlib import Path

from contract.child_environment import Purpose, child_environment
from contract.errors import UserError
from launcher.project import CACHE, lock_file, shown
from launcher.runtime.dependency_locks import pinned
from launcher.runtime.logged_process import run_logged


def download(lock: str, folder: Path, *, wheel: bool, what: str) -> None:
    """Put the archive of a lock's one package into a folder, its hash compared.

    Args:
        wheel: take the built package; otherwise its sources.
        what: is fetched, for the sentence that says that it was not.

    Raises:
        UserError: it cannot be had, or is not the one that was locked.
    """
    log = CACHE / "logs" / f"{lock}.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    # By name: of all packages, it would be said of what the sources are built with as well.
    (package,) = pinned(lock)
    command += ["--only-binary" if wheel else "--no-binary", package]
    command += ["--requirement", str(lock_file(lock)), "--dest", str(folder)]
    if run_logged(command, log, environment=child_environment(Purpose.PACKAGES)):
        errors = [line for line in log.read_text().splitlines() if "ERROR" in line]
        raise UserError.one(
            shown(log),
            f"{what} could not be downloaded: {(errors or ['see the log'])[0]}",
            "Check the network and run the same command again.",
        )
