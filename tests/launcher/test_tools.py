"""llama.cpp's tools are the same programs wherever they are compiled."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from contract.digest import digest_of_file
from contract.errors import UserError
from launcher.display import Display
from launcher.runtime import llama_cpp_tools
from launcher.runtime.llama_cpp_tools import PROGRAMS, compile_into, tools_digest

QUIET = Display(quiet=True)
# Built in another folder, on another day and maybe another machine. Whoever changes
# docker/locks/tools.in, llama-cpp.in or a setting in launcher/runtime/llama_cpp_tools.py writes
# them again with sha256sum.
KNOWN = Path(__file__).parent / "tools.x86_64.sha256"


def test_they_are_the_programs_that_were_compiled_elsewhere(tools):
    assert platform.machine() == "x86_64", "only x86_64's programs are known"
    known = dict(line.split()[::-1] for line in KNOWN.read_text().splitlines())
    assert known == {name: digest_of_file(tools / name) for name in PROGRAMS}


def test_they_hold_no_place_of_this_machine(tools):
    for name in PROGRAMS:
        held = (tools / name).read_bytes()
        assert str(tools.parents[3]).encode() not in held
        assert str(Path.home()).encode() + b"/" not in held


def test_they_start_here(tools):
    done = subprocess.run(
        [str(tools / "llama-quantize"), "--help"], capture_output=True, text=True, check=False
    )
    assert "Q4_K_M" in done.stdout


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("_SETTINGS", "GGML_NATIVE"),
        ("_WRAPPERS", "cc"),
        ("_ENVIRONMENT", "PATH"),
        ("_ENVIRONMENT", "CFLAGS"),
    ],
)
def test_another_setting_wrapper_or_environment_is_another_build(monkeypatch, table, name):
    before = tools_digest()
    monkeypatch.setitem(getattr(llama_cpp_tools, table), name, "another")
    assert tools_digest() != before


def test_another_flag_is_another_build(monkeypatch):
    before = tools_digest()
    monkeypatch.setattr(llama_cpp_tools, "_FLAGS", "-O0")
    assert tools_digest() != before


@pytest.mark.compiles
def test_what_this_machines_environment_says_of_compilers_does_not_matter(tmp_path, monkeypatch):
    for name in ("CC", "CXX", "CFLAGS", "LDFLAGS", "CMAKE_PREFIX_PATH", "CMAKE_TOOLCHAIN_FILE"):
        monkeypatch.setenv(name, "spoiled")
    monkeypatch.setenv("CMAKE_GENERATOR", "Unix Makefiles")
    monkeypatch.setenv("PATH", f"/opt/spoiled:{os.environ['PATH']}")
    work = tmp_path / "tools.building"
    (work / "sources").mkdir(parents=True)
    # CMake's own view of it, in the project that it configures.
    (work / "sources" / "CMakeLists.txt").write_text(
        "project(ours NONE)\n"
        "execute_process(COMMAND /usr/bin/env OUTPUT_FILE ${CMAKE_BINARY_DIR}/known)\n"
        "message(FATAL_ERROR no)\n"
    )
    with pytest.raises(UserError, match="could not be compiled"):
        compile_into(tmp_path / "tools", QUIET)
    lines = (work / "build" / "known").read_text().splitlines()
    known = dict(line.split("=", 1) for line in lines)
    # What the shell and CMake add by themselves.
    assert known.keys() - {"PWD", "OLDPWD", "SHLVL", "_"} == set(llama_cpp_tools._ENVIRONMENT)
    assert "spoiled" not in "".join(known.values())
    assert known["HOME"] == str(work)


@pytest.mark.compiles
def test_what_cannot_be_compiled_is_a_sentence_and_can_be_gone_on_with(tmp_path):
    sources = tmp_path / "tools.building" / "sources"
    sources.mkdir(parents=True)
    (sources / "CMakeLists.txt").write_text("project(ours NONE)\nmessage(FATAL_ERROR no)\n")
    with pytest.raises(UserError, match="could not be compiled") as refused:
        compile_into(tmp_path / "tools", QUIET)
    assert "Only the smoke profile, as it is, needs no tools" in str(refused.value)
    assert sources.is_dir()
    assert not (tmp_path / "tools").exists()


def test_a_full_disk_is_named_before_anything_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 10**9))
    with pytest.raises(
        UserError,
        match=r"1\.0 GB free, but compiling llama\.cpp's tools takes 2\.0 GB\. Free some space\.",
    ):
        compile_into(tmp_path / "tools", QUIET)
