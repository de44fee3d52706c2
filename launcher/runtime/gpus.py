"""Which NVIDIA cards this machine shows, and whether a recipe can run on them.

Asked of the driver, before anything of gigabytes is fetched; the stage asks CUDA itself again.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from contract.errors import UserError

_FIELDS = "name,driver_version,memory.total,compute_cap"
_WSL = Path("/usr/lib/wsl/lib/nvidia-smi")
_PATIENCE_S = 20.0
# bfloat16 arithmetic came with Ampere.
_BF16_FROM = (8, 0)


@dataclass(frozen=True)
class Gpu:
    """One card, as its driver describes it; an old driver does not tell the capability."""

    name: str
    driver: str
    memory_mib: int
    capability: tuple[int, int] | None

    @property
    def driver_major(self) -> int:
        """580 of 580.65.06."""
        return int(self.driver.partition(".")[0])

    def __str__(self) -> str:
        told = f", compute capability {_dotted(self.capability)}" if self.capability else ""
        return f"{self.name} ({self.memory_mib / 1024:.0f} GiB{told}, driver {self.driver})"


@dataclass(frozen=True)
class Needs:
    """What the wheels of a lock need of a card.

    The drivers: NVIDIA's table of CUDA minor version compatibility. The capability: the oldest
    kernels in the wheels (`torch.cuda.get_arch_list()`, held by tests/container).
    """

    cuda: str
    driver: int
    capability: tuple[int, int]


NEEDS = {
    "rtx": Needs(cuda="13.0", driver=580, capability=(7, 5)),
    "t4": Needs(cuda="12.8", driver=525, capability=(7, 5)),
}


def detect_gpus() -> list[Gpu]:
    """The cards that the driver shows; an empty list where there is none, or none that tells.

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
            f"the driver does not answer: {said[0] if said else answer.returncode}",
            "Load or install the NVIDIA driver (a reboot after an upgrade is often enough).",
        )
    return [_gpu(line) for line in answer.stdout.splitlines() if line.strip()]


def check_gpu(lock: str, precision: str) -> None:
    """See that some card can run this lock in this precision.

    Raises:
        UserError: no card, too old a driver, or too old a card; with the profile that fits.
    """
    found = detect_gpus()
    if found:
        complaints = [complaint(gpu, lock, precision) for gpu in found]
        if all(complaints):
            what, remedy = complaints[0] or ("", "")
            raise UserError.one("device", what, remedy)
    elif not Path("/dev/nvidia0").exists():
        raise UserError.one(
            "device",
            "this machine shows no NVIDIA card (no nvidia-smi, no /dev/nvidia0)",
            "Install the driver, or take --profile cpu or --profile smoke.",
        )


def complaint(gpu: Gpu, lock: str, precision: str) -> tuple[str, str] | None:
    """What keeps this card from running the lock in this precision, and the remedy; or None."""
    needs = NEEDS[lock]
    if gpu.capability and gpu.capability < needs.capability:
        return (
            f"{gpu}: too old for the {lock} image, whose kernels start at "
            f"{_dotted(needs.capability)} (Turing)",
            "Take --profile cpu.",
        )
    if gpu.driver_major < needs.driver:
        others = [name for name, other in NEEDS.items() if gpu.driver_major >= other.driver]
        instead = f", or take --profile {others[0]}" if others else ""
        return (
            f"{gpu}: driver too old for the {lock} image (CUDA {needs.cuda}, "
            f"driver {needs.driver} and up)",
            f"Install driver {needs.driver} or newer{instead}.",
        )
    if precision == "bf16" and gpu.capability and gpu.capability < _BF16_FROM:
        return (
            f"{gpu}: has no bf16, which came with compute capability {_dotted(_BF16_FROM)} "
            "(Ampere)",
            "Take --profile t4, which trains in fp16.",
        )
    return None


def _ask(tool: str, fields: str) -> subprocess.CompletedProcess[str]:
    command = [tool, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        # A card that fell off the bus hangs its driver.
        return subprocess.CompletedProcess(command, 1, f"silent for {_PATIENCE_S:.0f} s", "")


def _gpu(line: str) -> Gpu:
    name, driver, memory, *more = (field.strip() for field in line.split(","))
    capability = None
    if more and more[0].replace(".", "", 1).isdigit():
        major, _, minor = more[0].partition(".")
        capability = (int(major), int(minor or 0))
    return Gpu(name, driver, int(memory) if memory.isdigit() else 0, capability)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
