"""What ./invoke does with .venv: made once, whole or not used, and never somebody else's.

Real environments, out of the packages of the host lock that `./invoke --list` needs. Which Python
is taken is test_interpreter.py's.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from launcher.project import lock_file
from tests.conftest import clean_environment, fresh_copy
from tests.launcher.test_odd_machines import PLAIN_USER, read_only, sentence

_NEEDED = [
    "annotated-types",
    "invoke",
    "pydantic",
    "pydantic-core",
    "typing-extensions",
    "typing-inspection",
]


@pytest.fixture
def clone(tmp_path):
    """A fresh clone whose host lock is that of a few packages."""
    folder = fresh_copy(tmp_path / "clone d'été")
    entries = re.split(r"\n(?=[\w.-]+==)", lock_file("host").read_text(encoding="utf-8"))
    kept = [entry for entry in entries if entry.partition("==")[0] in _NEEDED]
    assert len(kept) == len(_NEEDED)
    (folder / "docker/locks/host.lock").write_text("\n".join(kept), encoding="utf-8")
    return folder


def begin(clone, *, before=(), **more):
    return subprocess.Popen(
        [*before, str(clone / "invoke"), "--list"],
        cwd=clone,
        env=clean_environment(AFFINEUR_ENVIRONMENT="", **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def assert_lists(done):
    assert done.returncode == 0, done.stderr
    assert "Fine-tune a model" in done.stdout


@pytest.mark.slow
def test_of_two_first_starts_at_once_one_makes_it_and_both_work(clone):
    both = [finish(process) for process in [begin(clone), begin(clone)]]
    for done in both:
        assert_lists(done)
    assert sorted("making .venv" in done.stderr for done in both) == [False, True]
    assert finish(begin(clone)).stderr == ""


def await_file(pattern, clone, process):
    while not any(clone.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("made", [".venv/pyvenv.cfg", ".venv/lib/python*/site-packages/pydantic*"])
def test_one_that_is_killed_leaves_what_the_next_one_finishes(clone, made):
    killed = begin(clone)
    await_file(made, clone, killed)
    # The shell alone: what it started goes on, and holds the lock.
    killed.send_signal(signal.SIGKILL)
    assert_lists(finish(begin(clone)))
    killed.communicate()
    assert (clone / ".venv/host.lock").exists()


@pytest.mark.slow
def test_a_machine_that_lost_power_in_between_makes_it_anew(clone):
    killed = begin(clone)
    await_file(".venv/bin", clone, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert_lists(finish(begin(clone)))


@pytest.mark.slow
def test_a_machine_without_ensurepip_installs_with_the_pip_that_it_has(clone, tmp_path):
    # As Colab's Python 3.12 is: no ensurepip, and a pip of its own.
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "dirname", "cmp", "cp", "rm", "mkdir"):
        (programs / name).symlink_to(shutil.which(name))
    python = programs / "python3"
    refuses = "#!/bin/sh\ncase $* in *ensurepip*) exit 1 ;; esac\n"
    python.write_text(f"{refuses}exec '{sys.base_prefix}/bin/python3' \"$@\"\n")
    python.chmod(0o755)
    done = finish(begin(clone, PATH=str(programs)))
    assert_lists(done)
    assert "making .venv" in done.stderr
    assert not (clone / ".venv/bin/pip").exists()
    assert finish(begin(clone, PATH=str(programs))).stderr == ""


def test_a_checkout_that_is_not_writable_is_a_sentence(clone):
    with read_only(clone):
        done = finish(begin(clone, before=PLAIN_USER))
    assert sentence(done) == (
        f"affineur: {clone} is not writable, and its .venv is missing or unfit. Make it writable, "
        "or clone it to a place that is."
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("what", ["folder", "link", "file"])
def test_a_venv_of_somebody_elses_is_left_alone(clone, tmp_path, what):
    folder = clone / ".venv" if what == "folder" else tmp_path / "theirs"
    folder.mkdir()
    (folder / "notes").write_text("the only ones")
    if what == "link":
        (clone / ".venv").symlink_to(folder)
    elif what == "file":
        (clone / ".venv").write_text("mine")
    done = finish(begin(clone))
    said = sentence(done)
    assert said.startswith(f"affineur: {clone}/.venv was not made by ./invoke, and cannot be used")
    assert said.endswith("Move it away and run this again.")
    assert (folder / "notes").read_text() == "the only ones"
    assert (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        ("cp /proc/version /dev/full", "a disk is full. Free some space and run this again."),
        ("echo 'Connection refused'", "Check the network and run this again."),
    ],
)
def test_why_packages_cannot_be_installed_is_told_apart(clone, tmp_path, refusal, remedy):
    """An interpreter whose pip fails, and that is Python for all else."""
    python = tmp_path / "bin" / "python3.11"
    python.parent.mkdir()
    python.write_text(
        f"""#!/bin/sh
case "$*" in
*version_info*) echo 3.11 ;;
*"-m venv"*) mkdir -p "$3/bin" "$3/lib/python3.11"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/pip" ;;
*"-m pip"*) {refusal}; exit 1 ;;
esac
"""
    )
    python.chmod(0o755)
    done = finish(begin(clone, PATH=f"{python.parent}:/usr/bin:/bin"))
    said = sentence(done)
    assert said.startswith("affineur: the packages of docker/locks/host.lock could not be")
    assert said.endswith(remedy)
    assert not (clone / ".venv/host.lock").exists()
