"""What is made once: whole or not there, made by one, taken by the others, and made again where
it was damaged.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.display import Display
from launcher.project import ROOT
from launcher.runtime import llama_cpp_tools, shared_cache
from launcher.runtime.llama_cpp_tools import PROGRAMS
from launcher.runtime.shared_cache import is_whole, shared, take_or_make

# Makes a folder in the words of a test, and says so in a file of its own.
_MAKER = """
import os, sys, time
from pathlib import Path
from launcher.runtime.shared_cache import take_or_make

def make(folder):
    folder.mkdir()
    (folder / "first").write_text("1")
    with open(sys.argv[2], "a") as said:
        said.write(f"{os.getpid()}\\n")
    time.sleep(float(sys.argv[3]))
    (folder / "program").write_text("whole")

take_or_make(Path(sys.argv[1]), "entry-1", make)
"""


def begin(folder: Path, said: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", _MAKER, folder, said, str(seconds)], cwd=ROOT)


@pytest.fixture
def clones(tmp_path, monkeypatch):
    """The places of one entry in two clones, with a cache of this user's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return [tmp_path / clone / "data" / "cache" / "entry" for clone in ("here", "there")]


def make(folder):
    folder.mkdir()
    (folder / "program").write_text("whole")
    (folder / "below").mkdir()
    (folder / "below" / "part").write_text("part")


def test_an_image_gets_no_marker_of_the_cache():
    dockerfile = (ROOT / "docker" / "exporter.Dockerfile").read_text(encoding="utf-8")
    assert f"-name {shared_cache._MARKER}" in dockerfile


def never(folder):
    raise AssertionError(f"{folder} was made again")


def left_behind(place: Path) -> list[str]:
    """What lies in and beside a place besides the entry and locks."""
    found = [path for path in place.parent.rglob("*") if path.is_file() and path.name != ".lock"]
    return [str(path) for path in found if not path.is_relative_to(place)]


def test_what_one_clone_made_another_copies(clones):
    here, there = clones
    take_or_make(here, "entry-1", make)
    take_or_make(there, "entry-1", never)
    take_or_make(here, "entry-1", never)
    assert (there / "below" / "part").read_text() == "part"
    # A copy: an edit here reaches nobody.
    (here / "program").write_text("edited")
    assert is_whole(there)
    assert not is_whole(here)
    assert left_behind(here) == left_behind(there) == left_behind(shared("entry-1")) == []


def flip(file):
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)


def put_in_place(folder, what):
    shutil.rmtree(folder)
    if what == "file":
        folder.write_text("a file")
    else:
        folder.symlink_to(folder.parent / "gone")


def marker(folder):
    return next(folder.glob(".whole*"))


DAMAGES = {
    "cut off": lambda folder: (folder / "program").write_text("who"),
    "emptied": lambda folder: (folder / "program").write_text(""),
    "flipped": lambda folder: flip(folder / "below" / "part"),
    "missing": lambda folder: (folder / "program").unlink(),
    "more": lambda folder: (folder / "more").write_text("more"),
    "marker cut off": lambda folder: marker(folder).write_text("{"),
    "marker emptied": lambda folder: marker(folder).write_text(""),
    # As an earlier version left it, or as it was left when a launcher was killed.
    "unmarked": lambda folder: marker(folder).unlink(),
    "a file": lambda folder: put_in_place(folder, "file"),
    "a link": lambda folder: put_in_place(folder, "link"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("where", ["clone", "shared", "both"])
def test_what_is_damaged_is_made_or_taken_again(clones, damage, where):
    here, _ = clones
    take_or_make(here, "entry-1", make)
    made = []
    if where != "shared":
        damage(here)
    if where != "clone":
        damage(shared("entry-1"))
        if where == "shared":
            shutil.rmtree(here)
    take_or_make(here, "entry-1", lambda folder: (make(folder), made.append(folder)))
    assert bool(made) == (where != "clone")
    for folder in (here, shared("entry-1")):
        assert is_whole(folder)
        assert (folder / "program").read_text() == "whole"
    assert left_behind(here) == []


def test_of_all_that_start_at_once_one_makes_it_and_all_have_it(clones, tmp_path):
    said = tmp_path / "said"
    makers = [begin(clone, said, 0.5) for clone in clones * 3]
    assert [maker.wait() for maker in makers] == [0] * 6
    assert len(said.read_text().split()) == 1
    assert all(is_whole(clone) and (clone / "first").read_text() == "1" for clone in clones)


@pytest.mark.parametrize("waiting", [False, True])
def test_one_that_is_killed_leaves_nothing_that_counts_or_stays(clones, tmp_path, waiting):
    here, there = clones
    said = tmp_path / "said"
    killed = begin(here, said, 600)
    while not said.exists():
        assert killed.poll() is None
        time.sleep(0.02)
    # The next one is there already, or comes later.
    other = begin(there, said, 0) if waiting else None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not here.exists()
    assert left_behind(here)
    if other is not None:
        assert other.wait() == 0
    take_or_make(here, "entry-1", never if waiting else make)
    assert is_whole(here)
    assert left_behind(here) == left_behind(shared("entry-1")) == []


@pytest.mark.parametrize("given", ["/dev/null/cache", "", "not/absolute"])
def test_a_user_without_a_cache_makes_it_for_this_clone(clones, monkeypatch, given):
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", "/dev/null")
    take_or_make(clones[0], "entry-1", make)
    assert is_whole(clones[0])


def test_a_user_without_a_home_is_no_traceback(clones):
    # As in a container that runs as a user of whom /etc/passwd knows nothing.
    code = (
        "import os, pwd, sys\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"
        "from pathlib import Path\n"
        "from launcher.runtime.shared_cache import shared, take_or_make\n"
        "assert shared('entry-1') is None\n"
        "take_or_make(Path(sys.argv[1]), 'entry-1', lambda folder: folder.mkdir())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, clones[0]], cwd=ROOT, env={}, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert is_whole(clones[0])


def test_tools_are_compared_with_their_digests_before_they_are_run(tmp_path, monkeypatch):
    """A compiler is stood in for: what is damaged here is what it would have made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(llama_cpp_tools, "CACHE", tmp_path / "here")

    def compile_into(folder, display):
        folder.mkdir()
        for name in PROGRAMS:
            (folder / name).write_text(f"#!/bin/sh\necho {name}\n")

    monkeypatch.setattr(llama_cpp_tools, "compile_into", compile_into)
    quiet = Display(quiet=True)
    folder = llama_cpp_tools.tools(quiet)
    assert llama_cpp_tools.has_tools()
    os.truncate(folder / "llama-quantize", 5)
    assert not llama_cpp_tools.has_tools()
    os.truncate(shared(folder.name) / "llama-quantize", 5)
    assert llama_cpp_tools.tools(quiet) == folder
    for place in (folder, shared(folder.name)):
        assert (place / "llama-quantize").read_text().endswith("echo llama-quantize\n")
