"""`./invoke doctor`: what this machine has for a profile, line by line, each with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from contract.errors import UserError
from contract.recipe import QUANTIZER_TYPES
from launcher.configuration import AUTO, profile_values
from launcher.display import styled
from launcher.project import CACHE, ROOT
from launcher.runtime import environment, gpus, images, wsl
from launcher.runtime.docker_engine import DockerEngine, EngineFacts
from launcher.runtime.docker_errors import TOOLKIT_REMEDY
from launcher.runtime.engine_choice import check_name
from launcher.runtime.gpu_generations import GENERATIONS
from launcher.runtime.llama_cpp_tools import has_tools
from launcher.serving.ollama_address import address
from launcher.serving.ollama_server import server_version

State = Literal["ok", "warn", "fail"]
_MARKS = {"ok": "[green]✓ ok  [/]", "warn": "[yellow]! warn[/]", "fail": "[red]✗ fail[/]"}


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it stands, and what to do about it."""

    subject: str
    state: State
    what: str
    remedy: str = ""


def examine(
    profile: str, engine: str, *, kernel: str | None = None, project: Path = ROOT
) -> list[Finding]:
    """Look at everything that a run of this profile needs on this machine.

    With `engine` docker a missing engine is a failure; with auto runs take the local one instead.

    Args:
        kernel: what /proc/version says, which tells WSL; None: that of this machine.
        project: where this clone is.

    Raises:
        UserError: there is no such profile or engine.
    """
    check_name(engine)
    findings = [_python()]
    if version := wsl.wsl_version(kernel):
        findings.append(_wsl(version, project))
    if profile == AUTO:
        profile, finding = _profile(kernel)
        findings.append(finding)
    values = profile_values(profile)
    lock = str(values["lock"])
    facts = None
    if engine != "local":
        try:
            docker = DockerEngine()
        except UserError as error:
            findings.append(_of_error("engine", error, "fail" if engine == "docker" else "warn"))
        else:
            facts = docker.facts()
            findings += [
                Finding("engine", "ok", f"Docker {facts.version} at {facts.endpoint}"),
                _buildx(),
                _store(facts),
                _space_for_images(docker, facts),
                _image(docker, lock),
                _user(facts),
            ]
    if facts is None:
        findings.append(_space_for_environments(lock))
    if values["device"] == "cuda":
        findings += _gpus(lock, str(values["precision"]), kernel)
        if facts is not None:
            findings.append(_toolkit(facts))
    else:
        findings.append(Finding("GPU", "ok", f"not needed for --profile {profile}"))
    findings += _tools(values["quantizations"])
    findings.append(_ollama())
    return findings


def show(findings: list[Finding], console: Console) -> None:
    """Print one line a finding, and its remedy below it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        text = Text(finding.what)
        if finding.remedy:
            text.append_text(styled("\n[italic]{}[/]", finding.remedy))
        table.add_row(styled(_MARKS[finding.state]), Text(finding.subject), text)
    console.print(table)


def _of_error(subject: str, error: UserError, state: State) -> Finding:
    problem = error.problems[0]
    return Finding(subject, state, problem.what, problem.remedy)


def _python() -> Finding:
    taken = f"{platform.python_version()} at {sys.base_prefix}"
    return Finding("python", "ok", f"{taken}: it runs the launcher, and stages on engine local")


def _wsl(version: int, project: Path) -> Finding:
    if wsl.on_windows_drive(project):
        return Finding(
            "WSL",
            "warn",
            f"{project} is on a drive of Windows's, which is slow from WSL {version}",
            "Clone the project into Linux's own file system, such as ~/affineur.",
        )
    return Finding("WSL", "ok", f"version {version}, and the project is in its own file system")


def _profile(kernel: str | None) -> tuple[str, Finding]:
    """The profile that a run without --profile takes."""
    try:
        choice = gpus.choose_profile(kernel)
    except UserError as error:
        # With it, the lines about the GPU say more.
        return next(iter(GENERATIONS)), _of_error("profile", error, "fail")
    return choice.profile, Finding("profile", "ok", f"{choice.profile}: {choice.why}")


def _buildx() -> Finding:
    try:
        return Finding("buildx", "ok", images.check_buildx())
    except UserError as error:
        return _of_error("buildx", error, "fail")


def _store(facts: EngineFacts) -> Finding:
    twice = " (stores layers twice: packed and unpacked)" if facts.keeps_layers_twice else ""
    return Finding("image store", "ok", facts.store + twice)


def _space_for_images(docker: DockerEngine, facts: EngineFacts) -> Finding:
    if not facts.root.is_dir():
        return Finding(
            "disk",
            "warn",
            f"{facts.root} is not visible from here: the engine's disk is on another machine",
            "Make sure it has 20 GB free.",
        )
    try:
        docker.check_space()
    except UserError as error:
        return _no_space(error)
    return Finding("disk", "ok", f"{_free(facts.root)} free for images, at {facts.root}")


def _space_for_environments(lock: str) -> Finding:
    if environment.environment_folder(lock).exists():
        return Finding("disk", "ok", f"{_free(CACHE)} free; the environment {lock} exists")
    try:
        environment.check_space(CACHE)
    except UserError as error:
        return _no_space(error)
    return Finding("disk", "ok", f"{_free(CACHE)} free for environments")


def _no_space(error: UserError) -> Finding:
    problem = error.problems[0]
    return Finding("disk", "fail", f"{problem.where}: {problem.what}", problem.remedy)


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB"


def _image(docker: DockerEngine, lock: str) -> Finding:
    if docker.has_current(lock):
        return Finding("image", "ok", f"{images.tag(lock)} is up to date")
    return Finding(
        "image",
        "warn",
        f"{images.tag(lock)} is not built yet or is out of date",
        "The next run builds it (downloads 3 GB the first time), or run ./invoke build.",
    )


def _user(facts: EngineFacts) -> Finding:
    who = f"outputs belong to {os.getuid()}:{os.getgid()}"
    if facts.rootless:
        return Finding("user", "ok", f"rootless engine: {who}")
    if facts.remapped:
        return Finding("user", "ok", f"the engine remaps users, but our containers opt out: {who}")
    return Finding("user", "ok", who)


def _gpus(lock: str, precision: str, kernel: str | None) -> list[Finding]:
    try:
        gpus.check_gpu(lock, precision, kernel)
        found = gpus.detect_gpus(kernel)
    except UserError as error:
        return [_of_error("GPU", error, "fail")]
    if not found:
        return [
            Finding(
                "GPU",
                "warn",
                "/dev/nvidia0 exists, but nvidia-smi is missing",
                "Install nvidia-smi (part of the driver) so that driver and GPU can be checked.",
            )
        ]
    lines = []
    for card in found:
        complaint = gpus.complaint(card, lock, precision, kernel)
        if complaint:
            lines.append(Finding("GPU", "warn", *complaint))
        else:
            lines.append(Finding("GPU", "ok", str(card)))
    return lines


def _toolkit(facts: EngineFacts) -> Finding:
    if facts.nvidia:
        return Finding("toolkit", "ok", "the engine supports NVIDIA GPUs")
    return Finding(
        "toolkit",
        "fail",
        "the engine does not support NVIDIA GPUs (neither a runtime nor a CDI specification)",
        TOOLKIT_REMEDY,
    )


def _tools(quantizations: list[str]) -> list[Finding]:
    asking = [kind for kind in quantizations if kind in QUANTIZER_TYPES]
    if not asking:
        return []
    if has_tools():
        return [Finding("llama.cpp", "ok", "tools are compiled")]
    return [
        Finding(
            "llama.cpp",
            "warn",
            f"the tools that {asking[0]} needs are not compiled yet",
            "The next run compiles them (about ten minutes on one core), or run "
            "./invoke build --tools.",
        )
    ]


def _ollama() -> Finding:
    version = server_version()
    if version:
        return Finding("Ollama", "ok", f"{version} at {address()}")
    return Finding(
        "Ollama",
        "warn",
        f"no server responds at {address()}",
        "Training works without it; start it (ollama serve) to import models.",
    )
