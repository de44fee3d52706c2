"""Which engine runs the stages."""

from __future__ import annotations

import shutil
from pathlib import Path

from launcher.display import Display
from launcher.engine.interface import Engine
from launcher.engine.local import LocalEngine
from trainer.contract.errors import UserError

NAMES = ("auto", "local", "docker")


def choose_engine(name: str, device: str, display: Display) -> Engine:
    """The engine of this name; `auto` says in one line what it took.

    Raises:
        UserError: no such engine, or it cannot give the device that the recipe asks for.
    """
    if name not in NAMES:
        raise UserError.one(
            "--engine", f"there is no engine {name!r}", f"Known: {', '.join(NAMES)}."
        )
    if device == "cuda" and not _sees_a_card():
        # Said before a base of gigabytes is fetched; the stage asks CUDA itself again.
        raise UserError.one(
            "device",
            "this machine shows no NVIDIA card (no nvidia-smi, no /dev/nvidia0)",
            "Install the driver, or take --profile cpu or --profile smoke.",
        )
    if name == "docker":
        # Here, not above: the SDK takes a while to import.
        from launcher.engine.docker import DockerEngine

        engine = DockerEngine()
        display.note(f"engine docker, at {engine.endpoint()}")
        return engine
    if name == "auto":
        display.note("engine local")
    return LocalEngine()


def _sees_a_card() -> bool:
    # In WSL the card has no device file, and nvidia-smi lies beside the driver's libraries.
    wsl = Path("/usr/lib/wsl/lib/nvidia-smi")
    return bool(shutil.which("nvidia-smi")) or Path("/dev/nvidia0").exists() or wsl.exists()
