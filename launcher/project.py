"""Where the project's own files are on this machine. Knows paths, reads none of them."""

from __future__ import annotations

from pathlib import Path

VERSION = "0.1.0"

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "docker" / "locks"
CONFIGS = ROOT / "configs"
PROFILES = CONFIGS / "profiles"
MODELS_FILE = CONFIGS / "models.yaml"
MODELS = ROOT / "data" / "models"
CACHE = ROOT / "data" / "cache"


def lock_file(name: str) -> Path:
    """`docker/locks/<name>.lock`."""
    return LOCKS / f"{name}.lock"


def shown(path: Path) -> str:
    """The path as a person would type it: from the project's root, if it lies there."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
