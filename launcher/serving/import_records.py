"""Which models of a server's were made here: `imports.json`, beside the runs of a model."""

from __future__ import annotations

import json
from pathlib import Path

from contract.atomic_write import atomic_write
from contract.errors import UserError
from launcher.pipeline.finished_run import Run
from launcher.project import shown
from launcher.runtime.exclusive_lock import exclusive_lock

_RECORDS = "imports.json"


class ImportRecords:
    """The models made here by their digests on a server; several commands may add to them.

    Args:
        folder: that of the model, in which its runs are.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _RECORDS

    @classmethod
    def of(cls, run: Run) -> ImportRecords:
        """Those of a run's model."""
        return cls(run.folder.parent)

    def model_digest(self, digest: str) -> str | None:
        """The `model_digest` of the run's model that a server knows by this digest of its
        manifest, or None where it was not made here.

        Raises:
            UserError: the file is no record.
        """
        return self._read().get(digest)

    def add(self, digest: str, model_digest: str) -> None:
        """Remember a model as made here.

        Raises:
            UserError: the file is no record.
        """
        with exclusive_lock(self._path.parent, wait=True):
            made = {**self._read(), digest: model_digest}
            atomic_write(self._path, json.dumps(made, indent=1) + "\n")

    def _read(self) -> dict[str, str]:
        if not self._path.exists():
            return {}
        try:
            made = json.loads(self._path.read_bytes())
        except ValueError:
            made = None
        if not isinstance(made, dict) or not all(isinstance(one, str) for one in made.values()):
            raise UserError.one(
                shown(self._path),
                "is damaged",
                "Remove it, and import the models again (./invoke import ... --replace).",
            )
        return made
