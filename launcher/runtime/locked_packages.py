"""Fetch a package's archive by the hash in a lock, for the files in it: nothing is installed, and
no line of it runs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from contract.child_environment import Purpose, child_environment
from contract.errors import UserError
from launcher.error_messages import remedy_in
from launcher.project import CACHE, lock_file, shown
from launcher.runtime.dependency_locks import pinned
from launcher.runtime.logged_process import run_logged

# pip asks a source package's build backend for its name and version before it keeps the archive.
# The backend would come from the index, without a hash; so it meets this one, which is llama.cpp's
# by name and builds nothing.
_BACKEND = "scikit_build_core/build.py"
_ANSWER = """\
from pathlib import Path

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = Path(metadata_directory, "{module}-{version}.dist-info")
    folder.mkdir()
    text = "Metadata-Version: 2.1\\nName: {package}\\nVersion: {version}\\n"
    (folder / "METADATA").write_text(text, encoding="utf-8")
    return folder.name
"""


def download(lock: str, folder: Path, *, wheel: bool, what: str) -> None:
    """Put the archive of a lock's one package into a folder, its hash compared.

    Args:
        wheel: take the built package; otherwise its sources, which are not built.
        what: is fetched, for the sentence that says that it was not.

    Raises:
        UserError: it cannot be had, or is not the one that was locked.
    """
    log = CACHE / "logs" / f"{lock}.log"
    ((package, version),) = pinned(lock).items()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--only-binary" if wheel else "--no-binary", package]
    # Where a build is asked for at all, nothing is fetched to build with.
    command += ["--no-build-isolation"]
    command += ["--requirement", str(lock_file(lock)), "--dest", str(folder)]
    with tempfile.TemporaryDirectory() as scratch:
        _write_backend(Path(scratch), package, version)
        environment = child_environment(Purpose.PACKAGES, PYTHONPATH=scratch)
        if run_logged(command, log, environment=environment):
            said = log.read_text(encoding="utf-8", errors="replace")
            errors = [line for line in said.splitlines() if "ERROR" in line]
            raise UserError.one(
                shown(log),
                f"{what} could not be downloaded: {(errors or ['see the log'])[0]}",
                remedy_in(said, "Check the network and run the same command again."),
            )


def _write_backend(folder: Path, package: str, version: str) -> None:
    backend = folder / _BACKEND
    backend.parent.mkdir()
    (backend.parent / "__init__.py").touch()
    answer = _ANSWER.format(module=package.replace("-", "_"), package=package, version=version)
    backend.write_text(answer, encoding="utf-8")
