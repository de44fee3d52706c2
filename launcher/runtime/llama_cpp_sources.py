"""Fetch llama.cpp's source tree, by hash, out of the package that carries it."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Collection
from pathlib import Path

from contract.digest import digest_of_value
from contract.errors import UserError
from launcher.display import Display
from launcher.project import CACHE
from launcher.runtime import locked_packages
from launcher.runtime.dependency_locks import lock_digest, pinned
from launcher.runtime.shared_cache import is_whole, take_or_make

# What the converters need of the tree, and what the tools are compiled from.
_CONVERTERS = (
    "convert_hf_to_gguf.py",
    "convert_lora_to_gguf.py",
    "conversion",
    "gguf-py",
    "LICENSE",
)
_SOURCES = (
    "CMakeLists.txt",
    "cmake",
    "common",
    "ggml",
    "include",
    "licenses",
    "LICENSE",
    "scripts",
    "src",
    "tools",
    "vendor",
)


def llama_cpp(display: Display) -> Path:
    """The folder of llama.cpp's converters, fetched once for each version that is locked.

    Clones share what was fetched. What is damaged is fetched again.

    Raises:
        UserError: the package cannot be had, or is not the one that was locked.
    """
    folder = _folder()
    wanted = digest_of_value([lock_digest("llama-cpp"), _CONVERTERS])

    def fetch(made: Path) -> None:
        with display.working("llama.cpp", f"converters from {_package()}"):
            _fetch(made, _CONVERTERS)

    take_or_make(folder, f"converters-{wanted[:12]}", fetch)
    return folder


def is_fetched() -> bool:
    """Whether `llama_cpp` has nothing to fetch."""
    return is_whole(_folder())


def _folder() -> Path:
    return CACHE / "llama.cpp" / lock_digest("llama-cpp")[:12]


def unpack_sources(folder: Path, display: Display) -> None:
    """Put what the tools are compiled from into a folder that is not there yet.

    Raises:
        UserError: as `llama_cpp`.
    """
    with display.working("llama.cpp", f"sources from {_package()}"):
        _fetch(folder, _SOURCES)


def _package() -> str:
    return f"llama-cpp-python {pinned('llama-cpp')['llama-cpp-python']}"


def _fetch(folder: Path, wanted: Collection[str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        download(Path(scratch))
        unpacked = Path(scratch) / "tree"
        _unpack(next(Path(scratch).glob("*.tar.gz")), unpacked, wanted)
        unpacked.rename(folder)


def download(folder: Path) -> None:
    """Put the locked source package into a folder, its hash compared.

    Raises:
        UserError: it cannot be had, or is not the one that was locked.
    """
    # No wheel is published, and none is wanted: the sources are.
    locked_packages.download("llama-cpp", folder, wheel=False, what="llama.cpp's sources")


def _unpack(archive: Path, folder: Path, wanted: Collection[str]) -> None:
    with tarfile.open(archive) as tar:
        # Debian 12's Python 3.11.2 has no filters yet; pip has compared the archive's hash.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in tar:
            # llama_cpp_python-X/vendor/llama.cpp/<what we want>/...
            parts = Path(member.name).parts
            if parts[1:3] == ("vendor", "llama.cpp") and len(parts) > 3 and parts[3] in wanted:
                member.name = str(Path(*parts[3:]))
                tar.extract(member, folder)
    if missing := [name for name in wanted if not (folder / name).exists()]:
        raise UserError.one(archive.name, f"contains no {', no '.join(missing)}")
