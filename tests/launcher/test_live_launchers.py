"""A launcher is known to live by the file that it holds, and by nothing else."""

import subprocess
import sys

import pytest

from launcher.project import ROOT
from launcher.runtime.live_launchers import LiveLaunchers

LAUNCHER = """
import sys
from pathlib import Path
from launcher.runtime.live_launchers import LiveLaunchers
print(LiveLaunchers("engine", Path(sys.argv[1])).own_name(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def another(tmp_path):
    """Another launcher's process, and its name."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


@pytest.fixture
def launchers(tmp_path):
    return LiveLaunchers("engine", tmp_path)


def files(tmp_path):
    return {path.name for path in tmp_path.glob("*/*")}


def test_a_launcher_is_dead_when_its_process_is_and_not_before(another, launchers):
    process, name = another
    assert not launchers.is_dead(name)
    process.kill()
    process.wait()
    assert launchers.is_dead(name)


def test_this_launcher_lives(launchers, tmp_path):
    own = launchers.own_name()
    assert own == launchers.own_name()
    assert not launchers.is_dead(own)
    # Nor does another part of this process think otherwise.
    assert not LiveLaunchers("engine", tmp_path).is_dead(own)


@pytest.mark.parametrize("name", ["", "box:4711", "../../../etc/passwd", "0" * 16, "é" * 16])
def test_a_launcher_that_cannot_be_seen_from_here_is_nobodys_to_judge(launchers, name):
    launchers.own_name()
    assert not launchers.is_dead(name)


def test_dead_launchers_leave_no_file_once_nothing_bears_their_name(another, launchers, tmp_path):
    process, name = another
    own = launchers.own_name()
    launchers.forget_dead([])
    assert files(tmp_path) == {own, name}
    process.kill()
    process.wait()
    launchers.forget_dead([name])
    assert files(tmp_path) == {own, name}
    # What it left on another engine is not seen from this one.
    LiveLaunchers("another engine", tmp_path).forget_dead([])
    assert files(tmp_path) == {own, name}
    launchers.forget_dead([])
    assert files(tmp_path) == {own}


def test_a_launcher_that_ends_takes_its_file_with_it(another, tmp_path):
    process, name = another
    assert name in files(tmp_path)
    process.communicate("")
    assert files(tmp_path) == set()
