"""Finished runs on this machine, by the names of their models."""

from __future__ import annotations

from pathlib import Path

from contract import paths
from contract.errors import UserError
from contract.manifest import Manifest
from launcher.project import MODELS, shown


def model_folder(model: str) -> Path:
    """`data/models/<model>/`; '/' and ':' in the name become '--'."""
    return MODELS / model.replace("/", "--").replace(":", "--")


def is_made_here(model: str) -> bool:
    """Whether there is a finished run of this model."""
    return any(model_folder(model).glob(f"*/{paths.MANIFEST}"))


def find_run(model: str, key: str = "") -> Path:
    """The folder of the model's last finished run, or of the one whose key begins so.

    Raises:
        UserError: there is no such model here, or no such finished run of it.
    """
    folder = model_folder(model)
    finished = [path.parent for path in folder.glob(f"*/{paths.MANIFEST}")]
    if not finished:
        known = sorted({path.parent.parent.name for path in MODELS.glob(f"*/*/{paths.MANIFEST}")})
        remedy = f"Known: {', '.join(known)}." if known else "Train one: ./invoke train."
        raise UserError.one("--model", f"{model} has no finished run here", remedy)
    matching = [run for run in finished if run.name.startswith(key)]
    if not matching:
        runs = ", ".join(sorted(run.name for run in finished))
        raise UserError.one(
            "--run", f"{shown(folder)} has no finished run {key}", f"There: {runs}."
        )
    readable = [run for run in matching if has_manifest(run)]
    # By what it says: a later verification writes it anew.
    return max(readable or matching, key=lambda run: read_manifest(run).created)


def has_manifest(run: Path) -> bool:
    """Whether the run is finished, by this version's manifest."""
    try:
        read_manifest(run)
    except (FileNotFoundError, UserError):
        return False
    return True


def read_manifest(run: Path) -> Manifest:
    """What a finished run wrote down of itself.

    Raises:
        UserError: another version of this project wrote it.
    """
    return Manifest.read(run / paths.MANIFEST)


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Write it whole; its being there says that the run is finished."""
    manifest.write(run / paths.MANIFEST)
