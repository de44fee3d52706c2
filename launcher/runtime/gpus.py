"""Which NVIDIA cards this machine shows, and whether a recipe can run on them.

The driver is asked, before gigabytes are fetched; the stage asks CUDA itself again.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from contract.child_environment import Purpose, child_environment
from contract.errors import UserError
from contract.precision_policy import BF16_FROM, Capability, Card, dotted
from launcher.runtime.gpu_generations import (
    GENERATIONS,
    architecture_of,
    generation_for,
)
from launcher.runtime.wsl import driver_remedy, wsl_version

_FIELDS = "name,driver_version,memory.total,compute_cap"
_WSL = Path("/usr/lib/wsl/lib/nvidia-smi")
_PATIENCE_S = 20.0
# Newer than every driver that a generation asks for.
_ANY_DRIVER = 10**6


@dataclass(frozen=True)
class Gpu:
    """One card, as its driver describes it; an old driver does not tell the capability."""

    name: str
    driver: str
    memory_mib: int
    capability: Capability | None

    @property
    def driver_major(self) -> int:
        """580 of 580.65.06."""
        return int(self.driver.partition(".")[0])

    def __str__(self) -> str:
        told = f", compute capability {dotted(self.capability)}" if self.capability else ""
        return f"{self.name} ({self.memory_mib / 1024:.0f} GiB{told}, driver {self.driver})"


def detect_gpus(kernel: str | None = None) -> list[Gpu]:
    """The cards that the driver shows; an empty list where there is none, or none that tells.

    Args:
        kernel: what /proc/version says, which decides where a driver is to be installed.

    Raises:
        UserError: there is a driver, and it does not answer.
    """
    tool = shutil.which("nvidia-smi") or (str(_WSL) if _WSL.exists() else None)
    if tool is None:
        return []
    answer = _ask(tool, _FIELDS)
    if answer.returncode and "compute_cap" in answer.stdout + answer.stderr:
        # Drivers before 510 do not know the field.
        answer = _ask(tool, _FIELDS.replace(",compute_cap", ""))
    if answer.returncode:
        said = (answer.stdout + answer.stderr).strip().splitlines()
        raise UserError.one(
            "nvidia-smi",
            f"the driver does not respond: {said[0] if said else answer.returncode}",
            driver_remedy(
                "Load or install the NVIDIA driver (a reboot after an upgrade is often enough).",
                kernel,
            ),
        )
    return [_gpu(line) for line in answer.stdout.splitlines() if line.strip()]


def check_gpu(lock: str, precision: str, kernel: str | None = None) -> None:
    """See that some card can run this lock in this precision.

    Args:
        kernel: see `detect_gpus`.

    Raises:
        UserError: no card, too old a driver, or too old a card; with the profile that fits.
    """
    found = detect_gpus(kernel)
    if found:
        complaints = [complaint(gpu, lock, precision, kernel) for gpu in found]
        if all(complaints):
            what, remedy = complaints[0] or ("", "")
            raise UserError.one("device", what, remedy)
    elif not Path("/dev/nvidia0").exists():
        raise UserError.one(
            "device",
            "no NVIDIA GPU was found (no nvidia-smi, no /dev/nvidia0)",
            f"{driver_remedy('Install the driver.', kernel)} "
            "Or use --profile cpu or --profile smoke.",
        )


@dataclass(frozen=True)
class ProfileChoice:
    """The name of a profile, and why it was chosen."""

    profile: str
    why: str


def choose_profile(kernel: str | None = None) -> ProfileChoice:
    """The profile that fits this machine's cards best; `cpu` where none can train.

    Args:
        kernel: see `detect_gpus`.

    Raises:
        UserError: a card could train, and its driver does not let it.
    """
    found = detect_gpus(kernel)
    if not found and not Path("/dev/nvidia0").exists():
        # A machine with Windows more often has one than not.
        hint = f". If there is one: {driver_remedy('', kernel)}" if wsl_version(kernel) else ""
        return ProfileChoice("cpu", f"no NVIDIA GPU was found{hint}")
    if not found:
        raise UserError.one(
            "device",
            "/dev/nvidia0 exists, but there is no nvidia-smi to tell which GPU it is",
            f"Install nvidia-smi (part of the driver), or use --profile "
            f"{', '.join(GENERATIONS)} or cpu.",
        )
    fitting = [(generation_for(gpu.driver_major, gpu.capability), gpu) for gpu in found]
    choices = [(generation, gpu) for generation, gpu in fitting if generation is not None]
    if choices:
        generation, gpu = max(choices, key=lambda choice: choice[0].cards_from)
        newer = generation_for(_ANY_DRIVER, gpu.capability)
        waits = (
            f"; profile {newer.name} needs driver {newer.min_driver} and up"
            if gpu.capability and newer not in (None, generation)
            else ""
        )
        return ProfileChoice(generation.name, f"{gpu}{waits}")
    for gpu in found:
        if newest := generation_for(_ANY_DRIVER, gpu.capability):
            what, remedy = complaint(gpu, newest.name, newest.precision, kernel) or ("", "")
            raise UserError.one("device", what, f"{remedy} Or use --profile cpu.")
    return ProfileChoice("cpu", f"{found[0]} is too old to train")


def complaint(
    gpu: Gpu, lock: str, precision: str, kernel: str | None = None
) -> tuple[str, str] | None:
    """What keeps this card from running the lock in this precision, and the remedy; or None."""
    wanted = GENERATIONS[lock]
    fitting = generation_for(gpu.driver_major, gpu.capability)
    if gpu.capability and gpu.capability < wanted.kernels_from:
        return (
            f"{gpu}: too old for the {lock} image, whose kernels start at "
            f"{dotted(wanted.kernels_from)}{architecture_of(wanted.kernels_from)}",
            f"Use --profile {fitting.name if fitting else 'cpu'}.",
        )
    if gpu.driver_major < wanted.min_driver:
        instead = f", or use --profile {fitting.name}" if fitting else ""
        where = " on Windows" if wsl_version(kernel) else ""
        return (
            f"{gpu}: driver too old for the {lock} image (CUDA {wanted.cuda}, "
            f"driver {wanted.min_driver} and up)",
            f"Install driver {wanted.min_driver} or newer{where}{instead}.",
        )
    # fp16 and fp32 are computed by every card that there are kernels for.
    if precision == "bf16" and gpu.capability and gpu.capability < BF16_FROM:
        return (
            f"{gpu}: does not support bf16, which needs compute capability {dotted(BF16_FROM)}"
            f"{architecture_of(BF16_FROM)}",
            f"Use --profile {fitting.name}, which trains in {fitting.precision}."
            if fitting
            else "Use --profile cpu.",
        )
    return None


def _ask(tool: str, fields: str) -> subprocess.CompletedProcess[str]:
    command = [tool, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(
            command,
            env=child_environment(Purpose.GPU_QUERY),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        # A card that fell off the bus hangs its driver.
        return subprocess.CompletedProcess(command, 1, f"no response for {_PATIENCE_S:.0f} s", "")


def _gpu(line: str) -> Gpu:
    name, driver, memory, *more = (field.strip() for field in line.split(","))
    capability = None
    if more and more[0].replace(".", "", 1).isdigit():
        major, _, minor = more[0].partition(".")
        capability = (int(major), int(minor or 0))
    return Gpu(name, driver, int(memory) if memory.isdigit() else 0, capability)


def training_card(device: str, lock: str, precision: str) -> Card | None:
    """The card that trains here with this lock in this precision, as far as the driver tells.

    Raises:
        UserError: there is a driver, and it does not answer.
    """
    if device != "cuda":
        return None
    for gpu in detect_gpus():
        if gpu.capability is not None and complaint(gpu, lock, precision) is None:
            return Card(gpu.capability, gpu.name, (gpu.memory_mib << 20) or None)
    return None
