"""The environments of other trainers, each made from a lock of its own beside this module.

They are no part of the product: nothing of it is installed from these locks. Compile them anew:

    python -m benchmarks.peers.environments
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from contract.child_environment import Purpose, child_environment
from launcher.display import Display
from launcher.project import CACHE, ROOT, shown
from launcher.runtime.dependency_locks import PYTHONS, pins, uv
from launcher.runtime.environment import ensure_locked

LOCKS = Path(__file__).resolve().parent
FOLDER = CACHE / "benchmarks"
_OVERRIDES = LOCKS / "overrides.txt"


def version(package: str) -> str:
    """The version of a trainer in the lock that is named after it."""
    return pins((LOCKS / f"{package}.lock").read_text(encoding="utf-8"))[package]


def interpreter(package: str, display: Display) -> Path:
    """The Python of a trainer's environment, which is made where it is missing.

    Raises:
        UserError: no disk space for it, or a package that cannot be had.
    """
    folder = FOLDER / f"{package}-{version(package)}"
    return ensure_locked(folder, [LOCKS / f"{package}.lock"], display)


def compile_locks() -> None:
    """Write every lock anew from its `.in` file; nothing is built, and nothing of it runs."""
    for requirements in sorted(LOCKS.glob("*.in")):
        command = [uv(), "pip", "compile", shown(requirements), "--quiet", "--upgrade"]
        command += ["--python-version", PYTHONS[0], "--no-python-downloads", "--no-build"]
        command += ["--generate-hashes", "--no-emit-index-url", "--no-annotate"]
        command += ["--override", shown(_OVERRIDES)]
        command += ["--custom-compile-command", f"python -m {__spec__.name}"]
        command += ["--output-file", shown(requirements.with_suffix(".lock"))]
        environment = child_environment(Purpose.PACKAGES)
        subprocess.run(command, cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    compile_locks()
