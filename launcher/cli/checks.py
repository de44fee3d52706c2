"""Run the project's own checks: tests in one environment that holds both wings, lint and types."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from contract.errors import UserError
from launcher.cli import documentation
from launcher.display import Display
from launcher.interruption import killed_at_once
from launcher.project import ROOT
from launcher.runtime.environment import ensure_environment

_SOURCES = (
    "tasks.py",
    "contract",
    "launcher",
    "trainer",
    "benchmarks",
    "notebooks",
    "tests",
    "docs",
)
# Run only when named: they fail without an engine, a GPU, a server or a browser, and never skip; or
# they take hours.
_NEEDS_MORE = "container or serves or browser or gpu or faults"
_NEEDS_TIME = "trains or compiles or slow"
# Each has its copies of the project and, where it reads a model, torch: about 1 GB.
_MOST_SIDE_BY_SIDE = 8
_SHELL = re.compile(rb"#!\S*[ /](?:ba|da)?sh\b")


def test(
    path: str,
    *,
    match: str,
    asked: Sequence[str],
    model: str,
    base: str,
    fast: bool,
    slow: bool,
) -> None:
    """Run pytest on everything that needs neither Docker, GPU nor Ollama, or on what is named.

    `asked` are folders of tests that need one of them, or hours; `fast` leaves out what trains and
    compiles as well, and `slow` runs that alone; `model` and `base` are served models that the
    tests of accuracy and regression are about. pytest reads PYTEST_ADDOPTS besides.

    Raises:
        UserError: there is no such path, or both `fast` and `slow` are asked for.
        SystemExit: with pytest's code, where a test failed.
    """
    if fast and slow:
        raise UserError.one("--fast --slow", "exclude each other", "Leave both out to run all.")
    if path and not (ROOT / path.partition("::")[0]).exists():
        raise UserError.one(
            "--only", f"{path} does not exist", "For example: --only tests/contract."
        )
    command = [str(_test_environment()), "-m", "pytest"]
    if asked:
        command += [f"tests/{name}" for name in asked]
    else:
        command.append(path or "tests")
    if fast:
        command += ["-m", f"not ({_NEEDS_MORE} or {_NEEDS_TIME})"]
        if not path:
            # Whole files, since tests of one share what they made.
            workers = min(os.cpu_count() or 1, _MOST_SIDE_BY_SIDE)
            command += ["-n", str(workers), "--dist", "loadfile"]
    elif slow:
        command += ["-m", f"({_NEEDS_TIME}) and not ({_NEEDS_MORE})"]
    elif not asked and not path:
        command += ["-m", f"not ({_NEEDS_MORE})"]
    if match:
        command += ["-k", match]
    for flag, name in (("--model", model), ("--base", base)):
        command += [flag, name] if name else []
    run_tool(command)


def bench(name: str, arguments: str) -> None:
    """Run one benchmark, which prints figures and their ratios within this run.

    Args:
        arguments: the benchmark's own, as a shell takes them.

    Raises:
        UserError: there is no such benchmark, or a quote is left open.
        SystemExit: with the benchmark's code, where it is not 0.
    """
    known = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))
    if name not in known:
        raise UserError.one(
            "bench", f"there is no benchmark {name!r}", f"Known: {', '.join(known)}."
        )
    try:
        own = shlex.split(arguments)
    except ValueError as error:
        raise UserError.one("--args", f"{arguments}: {error}") from None
    run_tool([str(_test_environment()), "-m", f"benchmarks.{name}", *own])


def check() -> None:
    """Lint, formatting, types: all are run, then the first failure's code ends it."""
    tools = _tools()
    shellcheck = Path(tools[0]).parent / "shellcheck"
    _run_all(
        [
            [*tools, "ruff", "check", *_SOURCES],
            [*tools, "ruff", "format", "--check", *_SOURCES],
            [*tools, "mypy", *_SOURCES],
            [str(shellcheck), *shell_scripts(ROOT)],
        ]
    )


def shell_scripts(root: Path) -> list[str]:
    """The project's shell scripts, by their first line: at the top and where CI's are."""
    files = [path for folder in (root, root / ".ci") for path in folder.iterdir() if path.is_file()]
    return [
        path.relative_to(root).as_posix()
        for path in sorted(files)
        if _SHELL.match(path.read_bytes()[:64])
    ]


def fix() -> None:
    """What ruff can fix by itself, and the tables of configs/README.md."""
    documentation.write_tables()
    tools = _tools()
    _run_all([[*tools, "ruff", "check", "--fix", *_SOURCES], [*tools, "ruff", "format", *_SOURCES]])


def run_tool(command: list[str], **environment: str) -> None:
    """Run one of the project's tools in its folder, to its end, with these variables as well.

    Raises:
        SystemExit: with its code, where it is not 0.
    """
    if code := _code(command, environment):
        raise SystemExit(code)


def _test_environment() -> Path:
    # Both wings and the test tools together; tests/boundary holds that they can live apart.
    return ensure_environment("test", ["host", "rtx", "check"], Display())


def _tools() -> list[str]:
    return [str(ensure_environment("check", ["host", "check"], Display())), "-m"]


def _run_all(commands: Sequence[list[str]]) -> None:
    codes = [_code(command) for command in commands]
    if failed := next((code for code in codes if code), 0):
        raise SystemExit(failed)


def _code(command: list[str], environment: Mapping[str, str] = {}) -> int:
    variables = {**os.environ, "PYTHONHASHSEED": "0", **environment}
    with subprocess.Popen(command, cwd=ROOT, env=variables) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal told it as well: it may have something to print or to clean up.
            with killed_at_once(process.kill):
                process.wait()
            raise
