"""Where the project's own files are on this machine, and which version this is."""

from __future__ import annotations

import tomllib
from pathlib import Path

from contract.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# It stands in pyproject.toml alone.
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
LOCKS = ROOT / "docker" / "locks"
CONFIGS = ROOT / "configs"
PROFILES = CONFIGS / "profiles"
MODELS_FILE = CONFIGS / "models.yaml"
MODELS = ROOT / "data" / "models"
CACHE = ROOT / "data" / "cache"
PACKAGES = ROOT / "data" / "packages"
# Where no server is named.
MLFLOW_STORE = ROOT / "data" / "tracking" / "mlflow.db"
REPRODUCED = ROOT / "data" / "reproduced"


def lock_file(name: str) -> Path:
    """`docker/locks/<name>.lock`."""
    return LOCKS / f"{name}.lock"


def check_new(path: Path, where: str, remedy: str) -> None:
    """See that nothing is where a file is to be written, and that its folder is there.

    Args:
        where: begins the sentence that refuses it.
        remedy: for what is there already.

    Raises:
        UserError: something is there, or its folder is not.
    """
    if path.exists() or path.is_symlink():
        raise UserError.one(where, f"{path} already exists", remedy)
    if not path.parent.is_dir():
        raise UserError.one(where, f"{path.parent} is no folder", "Make it first: mkdir -p.")


def user_path(given: str, where: str) -> Path:
    """A path as a person gives it, with `~` for a home.

    Args:
        where: begins the sentence that refuses it.

    Raises:
        UserError: it begins with the home of a user who has none.
    """
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise UserError.one(
            where, f"{given}: that user has no home here", "Write the path in full."
        ) from None


def shown(path: Path) -> str:
    """The path as a person would type it: from the project's root, if it lies there."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
