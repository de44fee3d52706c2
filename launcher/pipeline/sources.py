"""What a stage stands on may be edited while a run goes on: then what it made is not recorded.

A key is of files as they were when it was made. An edit that is put back leaves no other digest
behind, so it is their stamps that are compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from contract.digest import files_below
from contract.errors import Problem, UserError
from launcher.pipeline.code_digest import code_files
from launcher.project import ROOT, lock_file, shown
from launcher.runtime.file_stamp import Stamps, changed, stamps

_WINGS = ("contract", "trainer")


class Sources:
    """Our own code and a lock, as they are when the keys of a command are made."""

    def __init__(self, lock: str, root: Path = ROOT) -> None:
        self._root = root
        self._lock = lock_file(lock)
        code = [path for wing in _WINGS for path in files_below(root / wing)]
        self._code = [path for path in code if path.suffix == ".py"]
        self._stamps = stamps([self._lock, *self._code])

    def copy(self, folder: Path) -> None:
        """Copy the code to a folder that is not there yet, for a stage that runs outside images:
        an edit during hours of training then changes nothing that it imports later.
        """
        for path in self._code:
            target = folder / path.relative_to(self._root)
            target.parent.mkdir(parents=True, exist_ok=True)
            # One that is gone is an edit, which `check` finds.
            with suppress(FileNotFoundError):
                shutil.copyfile(path, target)

    def check(self, stage: str) -> None:
        """See that neither the stage's code nor the lock was edited since.

        Raises:
            UserError: naming each file that was.
        """
        reads = [self._lock, *code_files(f"trainer.{stage}", self._root).values()]
        check_unchanged(stage, {path: self._stamps.get(path) for path in reads})


def check_unchanged(stage: str, before: Stamps) -> None:
    """See that files have the stamps that they had.

    Raises:
        UserError: naming each file that has not.
    """
    if found := changed(before):
        raise UserError(_problems(stage, found))


def _problems(stage: str, files: Iterable[Path]) -> list[Problem]:
    return [
        Problem(
            where=shown(path),
            what=f"was changed while {stage} was to be made from it",
            remedy="Nothing was recorded; run the same command again.",
        )
        for path in files
    ]
