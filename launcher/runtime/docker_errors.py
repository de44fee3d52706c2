"""What an engine refuses, as sentences: what, where, the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contract.errors import UserError

# The first with BuildKit 0.11, which sets an image's dates.
_OLDEST_ENGINE, _OLDEST_API = "24.0", (1, 43)
TOOLKIT_REMEDY = (
    "Install the NVIDIA Container Toolkit, then: sudo nvidia-ctk runtime configure "
    "--runtime=docker && sudo systemctl restart docker."
)


def check_version(version: Mapping[str, Any], address: str) -> None:
    """See that the engine is new enough, by what its `/version` says.

    Raises:
        UserError: it is too old.
    """
    api = tuple(int(part) for part in str(version["ApiVersion"]).split("."))
    if api < _OLDEST_API:
        raise UserError.one(
            "docker",
            f"the engine at {address} is {version['Version']}, but images need "
            f"{_OLDEST_ENGINE} or newer (BuildKit with reproducible timestamps)",
            "Upgrade Docker, or train with --engine local.",
        )


def explanation(error: Exception) -> str:
    """What the engine itself said, where the error has it."""
    return str(getattr(error, "explanation", None) or error)


def unreachable(said: str, address: str) -> UserError:
    """Nobody answers at the address, or not to this user."""
    if "Permission denied" in said or "PermissionError" in said:
        return UserError.one(
            "docker",
            f"this user may not access the engine's socket at {address}",
            "sudo usermod -aG docker $USER, then log in again; or train with --engine local.",
        )
    return UserError.one(
        "docker",
        f"no engine responds at {address}",
        "Start it (sudo systemctl start docker), or train with --engine local.",
    )


def refused_container(said: str, address: str) -> UserError:
    """The engine does not make the container."""
    if "bind source path does not exist" in said:
        return UserError.one(
            "docker",
            f"the engine at {address} cannot access this machine's files ({said})",
            "Use an engine on this machine, or --engine local.",
        )
    return UserError.one("docker", f"the container could not be created: {said}")


def refused_start(said: str) -> UserError:
    """The engine made the container and cannot start it."""
    if "could not select device driver" in said or "nvidia" in said.lower():
        return UserError.one(
            "docker",
            "the engine has no access to a GPU",
            f"{TOOLKIT_REMEDY} Docker from snap is not supported. Or use --engine local.",
        )
    return UserError.one("docker", f"the container did not start: {said}")
