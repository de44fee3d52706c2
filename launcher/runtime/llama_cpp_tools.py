"""Compile llama.cpp's tools out of its locked sources, with a locked compiler, into the cache.

The compiler is a package like others: no compiler of the machine's own is asked for, and the same
programs come out to the byte, wherever they are built. The exporter image takes them from here.
"""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path

from contract.child_environment import Purpose, child_environment
from contract.digest import digest_of_value
from contract.disk_space import check_disk_space
from contract.errors import UserError
from contract.events import Progress
from launcher.display import Display, StageLine
from launcher.project import CACHE, shown
from launcher.runtime.dependency_locks import lock_digest, pinned
from launcher.runtime.environment import ensure_environment
from launcher.runtime.llama_cpp_sources import unpack_sources
from launcher.runtime.logged_process import run_logged
from launcher.runtime.shared_cache import take_or_make

PROGRAMS = ("llama-quantize", "llama-imatrix", "llama-server")
# The C library of Debian 11: the programs run on this and on everything newer.
_TARGET = f"{platform.machine()}-linux-gnu.2.31"
_SETTINGS = {
    "CMAKE_BUILD_TYPE": "Release",
    # Smaller, and without the paths of the folder that it is built in.
    "CMAKE_EXE_LINKER_FLAGS": "-s",
    "BUILD_SHARED_LIBS": "OFF",
    # Portable between machines: AVX2 and no more, whatever this one has.
    "GGML_NATIVE": "OFF",
    "GGML_OPENMP": "OFF",
    "GGML_CCACHE": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    # The commit of whatever repository is around is not llama.cpp's.
    "GIT_EXE": "false",
    "GIT_EXECUTABLE": "false",
}
# Many small files with the same large headers: compiled sixteen at a time, in a third of the time.
_UNITY = """\
cmake_language(DEFER DIRECTORY ${CMAKE_SOURCE_DIR} CALL
  set_target_properties llama PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)
"""
# Measured: 0.9 GB of objects, 0.1 GB of the compiler's, and the sources.
_BUILD_BYTES = 2 * 10**9
# ninja's `[12/212] Building CXX object ...`.
_STEP = re.compile(r"\[(\d+)/(\d+)\]")


def tools_digest() -> str:
    """The digest of all that decides the programs: sources, compiler, settings."""
    locks = [lock_digest("llama-cpp"), lock_digest("tools")]
    return digest_of_value([locks, PROGRAMS, _TARGET, _SETTINGS, _UNITY])


def tools_folder() -> Path:
    """Where the programs of the versions that are locked lie, once they are compiled."""
    return CACHE / "llama.cpp" / f"tools-{tools_digest()[:12]}"


def tools(display: Display) -> Path:
    """The folder of the compiled programs, built once for each version that is locked.

    A build that is cut off goes on where it was. Clones share what was compiled, as they do their
    packages in uv's cache: it is the same to the byte.

    Raises:
        UserError: no disk space, a package that cannot be had, or a compilation that failed.
    """
    folder = tools_folder()
    if not folder.is_dir():
        take_or_make(folder, folder.name, lambda: compile_into(folder, display))
    return folder


def compile_into(folder: Path, display: Display) -> None:
    """Compile the programs into a folder that is not there yet.

    Raises:
        UserError: see `tools`.
    """
    work = folder.with_name(f"{folder.name}.building")
    work.mkdir(parents=True, exist_ok=True)
    check_disk_space(
        work,
        _BUILD_BYTES,
        where=shown(work),
        purpose="compiling llama.cpp's tools takes",
        remedy="Free some space. Only the smoke profile, as it is, needs no tools.",
    )
    python = ensure_environment("tools", ["tools"], display)
    if not (work / "sources").is_dir():
        unpack_sources(work / "sources", display)
    version = pinned("llama-cpp")["llama-cpp-python"]
    with display.working("tools", f"from llama-cpp-python {version}") as line:
        _compile(work, python, line)
    finished = work / "finished"
    shutil.rmtree(finished, ignore_errors=True)
    finished.mkdir()
    for name in PROGRAMS:
        shutil.copy(work / "build" / "bin" / name, finished / name)
    shutil.copy(work / "sources" / "LICENSE", finished / "LICENSE")
    finished.rename(folder)
    shutil.rmtree(work)


def _compile(work: Path, python: Path, line: StageLine) -> None:
    programs = python.parent
    compiler = next(python.parent.parent.glob("lib/python*/site-packages/ziglang/zig"))
    wrappers = work / "compiler"
    _write_wrappers(wrappers, compiler)
    (work / "unity.cmake").write_text(_UNITY)
    settings = {
        **_SETTINGS,
        "CMAKE_MAKE_PROGRAM": programs / "ninja",
        "CMAKE_C_COMPILER": wrappers / "cc",
        "CMAKE_CXX_COMPILER": wrappers / "c++",
        "CMAKE_AR": wrappers / "ar",
        "CMAKE_RANLIB": wrappers / "ranlib",
        # In place of the folders' paths, which asserts and logs quote.
        "CMAKE_C_FLAGS": _without_paths(work),
        "CMAKE_CXX_FLAGS": _without_paths(work),
        "CMAKE_PROJECT_INCLUDE": work / "unity.cmake",
    }
    environment = child_environment(
        Purpose.COMPILER,
        ZIG_GLOBAL_CACHE_DIR=str(work / "compiled"),
        ZIG_LOCAL_CACHE_DIR=str(work / "compiled"),
    )
    configure = [str(programs / "cmake"), "-G", "Ninja", "-S", "sources", "-B", "build"]
    configure += [f"-D{name}={value}" for name, value in settings.items()]
    build = [str(programs / "ninja"), "-C", "build", *PROGRAMS]

    def on_line(text: str) -> None:
        if step := _STEP.match(text):
            line.on_event(
                Progress(doing="compiling", done=int(step[1]), total=int(step[2]), unit="files")
            )

    for name, command in (("configure", configure), ("build", build)):
        log = CACHE / "logs" / f"tools-{name}.log"
        if run_logged(command, log, environment=environment, on_line=on_line, folder=work):
            lines = [text for text in log.read_text().splitlines() if "rror" in text]
            raise UserError.one(
                shown(log),
                f"llama.cpp's tools could not be compiled: {(lines or ['see the log'])[0]}",
                "Run the same command again. Only the smoke profile, as it is, needs no tools.",
            )


def _write_wrappers(folder: Path, compiler: Path) -> None:
    # CMake wants one program each, and the compiler is one for all.
    folder.mkdir(exist_ok=True)
    for name, words in (
        ("cc", f"cc -target {_TARGET}"),
        ("c++", f"c++ -target {_TARGET}"),
        ("ar", "ar"),
        ("ranlib", "ranlib"),
    ):
        wrapper = folder / name
        wrapper.write_text(f'#!/bin/sh\nexec "{compiler}" {words} "$@"\n')
        wrapper.chmod(0o755)


def _without_paths(work: Path) -> str:
    return f'"-ffile-prefix-map={work}=."'
