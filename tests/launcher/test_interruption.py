"""A launcher that is stopped, hung up on or killed: what becomes of its stage and its folder.

Launcher and stage are real processes; the stage is an odd one (tests/odd_stage.py).
"""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from contract.errors import UserError
from launcher.project import ROOT
from launcher.runtime import exclusive_lock as locking
from launcher.runtime.exclusive_lock import exclusive_lock

# Only a test that fails waits for so long.
PATIENCE_S = 60
UNTIL_STOPPED = """
ready(run)
try:
    while True:
        time.sleep(0.05)
finally:
    reporter.note("saving")
    ready(run, "saved")
"""
# It does not hear that it is to stop; it ends where nobody cleans up after it.
DEAF = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
ready(run)
time.sleep(60)
"""
SLOW_TO_STOP = """
ready(run)
try:
    time.sleep(60)
finally:
    ready(run, "stopping")
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run d'été"
    folder.mkdir()
    return folder


@pytest.fixture
def launch(run):
    """Starts a launcher of a stage that does this, and waits until the stage is there."""
    started = []

    def begin(code, **how):
        (run / "code.py").write_text(code)
        (run / "ready").unlink(missing_ok=True)
        usual = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        # As in a terminal: where the tests run in the background, Ctrl-C may be ignored.
        usual["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.odd_launcher", str(run)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            **{**usual, **how},
        )
        started.append(process)
        return process, wait_for(run / "ready")

    yield begin
    for process in started:
        process.kill()
        process.communicate()
    for name in ("ready", "child"):
        if (run / name).exists() and is_alive(pid := int((run / name).read_text())):
            os.kill(pid, signal.SIGKILL)


def wait_for(file):
    """The process that says by this file that it is there."""
    eventually(file.exists)
    return int(file.read_text())


def eventually(holds):
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_launcher_that_is_told_to_stop_lets_its_stage_save_what_it_has(launch, run, number):
    process, stage = launch(UNTIL_STOPPED)
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 130, said
    assert "run the same command to resume" in said
    assert "Traceback" not in said
    assert (run / "saved").exists()
    assert not is_alive(stage)


def test_a_closed_terminal_stops_a_run_in_good_order(launch, run):
    terminal, inside = pty.openpty()

    def take_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process, stage = launch(
        UNTIL_STOPPED, stdin=inside, stderr=inside, text=False, preexec_fn=take_terminal
    )
    os.close(inside)
    os.close(terminal)
    assert process.wait(PATIENCE_S) == 130
    assert (run / "saved").exists()
    assert not is_alive(stage)


def test_a_run_under_nohup_goes_on(launch):
    process, stage = launch(
        UNTIL_STOPPED, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert "received SIGTERM" in said
    assert "SIGHUP" not in said
    assert not is_alive(stage)


def test_a_second_ctrl_c_kills_at_once(launch, run):
    process, stage = launch(SLOW_TO_STOP)
    process.send_signal(signal.SIGINT)
    wait_for(run / "stopping")
    # Whoever shuts a machine down sends more than one of these, and does not insist.
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGHUP)
    assert process.poll() is None
    assert is_alive(stage)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 130, said
    assert said.count("killing what still runs") == 1
    assert "Traceback" not in said
    assert not is_alive(stage)


def test_a_third_ctrl_c_leaves_whatever_is_still_being_cleaned_up(run):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from launcher.error_messages import exit_on_error\n"
        "with exit_on_error(lambda text, code: SystemExit(code)):\n"
        "    try:\n"
        "        Path(sys.argv[1], 'ready').touch()\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        Path(sys.argv[1], 'cleaning').touch()\n"
        "        time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        eventually((run / "ready").exists)
        process.send_signal(signal.SIGINT)
        eventually((run / "cleaning").exists)
        process.send_signal(signal.SIGINT)
        assert "once more leaves" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
        assert process.wait(PATIENCE_S) == 130


def test_ctrl_c_while_modules_are_loaded_prints_no_traceback(tmp_path):
    (tmp_path / "invoke").mkdir()
    (tmp_path / "invoke" / "__init__.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path)!r}, 'ready').touch()\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [str(ROOT / "invoke"), "--list"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        eventually((tmp_path / "ready").exists)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE_S)[1] == ""
        assert process.returncode == -signal.SIGINT


def test_the_stage_of_a_killed_launcher_stops_in_good_order_and_the_next_run_goes_on(launch, run):
    process, stage = launch(UNTIL_STOPPED)
    process.kill()
    wait_for(run / "saved")
    eventually(lambda: not is_alive(stage))
    # What it had to say when nobody listened did not keep it from saving.
    assert "Traceback" not in (run / "log").read_text()
    second, _ = launch("ready(run)")
    assert second.communicate(timeout=PATIENCE_S)[1] == ""
    assert second.returncode == 0


def test_a_folder_stays_held_until_the_stage_of_a_killed_launcher_has_ended(
    launch, run, monkeypatch
):
    process, stage = launch(DEAF)
    process.kill()
    process.wait()
    monkeypatch.setattr(locking, "_ORPHANS_TIME_S", 0.0)
    with (
        pytest.raises(UserError, match=rf"whose launcher was killed .* \(process {stage}\)"),
        exclusive_lock(run),
    ):
        pass
    os.kill(stage, signal.SIGKILL)
    with exclusive_lock(run, wait=True):
        assert not is_alive(stage)


def test_a_stage_that_needs_a_moment_to_stop_is_waited_for(launch, run):
    process, _ = launch(UNTIL_STOPPED)
    process.kill()
    process.wait()
    with exclusive_lock(run):
        assert (run / "saved").exists()


def test_a_second_launcher_is_told_which_process_holds_the_folder(launch, run):
    process, _ = launch(UNTIL_STOPPED)
    with (
        pytest.raises(UserError, match=rf"is in use by another run \(process {process.pid}\)"),
        exclusive_lock(run),
    ):
        pass


def test_what_a_killed_stage_started_does_not_outlive_it(launch, run):
    process, stage = launch(
        "child = subprocess.Popen(['sleep', '60'])\n"
        "(run / 'child').write_text(str(child.pid))\n"
        "ready(run)\n"
        "child.wait()\n"
    )
    child = int((run / "child").read_text())
    os.kill(stage, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    assert not is_alive(child)


def test_a_secret_is_said_to_the_stage_and_stands_nowhere(launch, run):
    process, stage = launch(
        "assert secrets == {'HF_TOKEN': 'hf_said_to_the_stage'}\n"
        "child = subprocess.run(['env'], capture_output=True, text=True)\n"
        "(run / 'passed_on').write_text(child.stdout)\n" + UNTIL_STOPPED
    )
    described = [Path(f"/proc/{stage}/{name}").read_bytes() for name in ("environ", "cmdline")]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    written = [path.read_bytes() for path in run.rglob("*") if path.name != "code.py"]
    assert (run / "passed_on").read_text()
    assert not any(b"hf_said" in text for text in described + written)


def test_a_folders_identity_is_its_own_for_good(run, tmp_path):
    def identity(folder):
        with exclusive_lock(folder):
            (found,) = locking.held_identities()
        return found

    first = identity(run)
    assert identity(run) == first
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / ".lock").write_bytes((run / ".lock").read_bytes())
    assert identity(copy) != first
    assert locking.held_descriptors() == ()
