"""Killed, stopped or hung up on at any moment: the same command ends what was begun."""

import os
import signal
import subprocess
import time
from contextlib import suppress

import psutil
import pytest
from docker.errors import DockerException

from tests.faults.conftest import count, drawn, start_over, times

_PATIENCE_S = 300


def gone(process, seconds):
    """Whether a process is gone within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def wait_until_alone(small):
    """A stage whose launcher was killed ends by itself."""
    for process in small.processes():
        assert gone(process, _PATIENCE_S), process
    deadline = time.monotonic() + _PATIENCE_S
    while any(container.status == "running" for container in small.containers()):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize("who", ["launcher", "stage"])
def test_kill_9_at_random_moments(small, undisturbed, who):
    kill_at_random_moments(small, undisturbed, who, times(40))


@pytest.mark.parametrize("who", ["launcher", "stage"])
def test_kill_9_in_containers_at_random_moments(contained, undisturbed, who):
    kill_at_random_moments(contained, undisturbed, who, times(8))


def kill_at_random_moments(small, undisturbed, who, faults):
    """Each chain of faults ends in a run that was killed a few times at different places."""
    random = drawn(f"kill {who} {small.engine}")
    kind = f"kill -9 of the {who}, engine {small.engine}"
    start_over(small)
    for number in range(faults):
        process = small.begin()
        moment_s = random.uniform(0.1, undisturbed.seconds)
        try:
            _, said = process.communicate(timeout=moment_s)
        except subprocess.TimeoutExpired:
            victim = small.stage() if who == "stage" else psutil.Process(process.pid)
            # It may have ended since it was found.
            with suppress(psutil.NoSuchProcess, DockerException):
                if victim is not None:
                    victim.kill()
            _, said = process.communicate(timeout=_PATIENCE_S)
        if process.returncode == 0:
            small.check_whole(undisturbed.outputs)
            count(kind, "too late: the run had ended")
            start_over(small)
            continue
        assert "Traceback" not in said, said
        assert process.returncode in (-signal.SIGKILL, 2, 130), (process.returncode, said)
        wait_until_alone(small)
        small.check_nothing_half_looks_whole()
        if number % 3 == 2:
            done = small.train()
            assert done.returncode == 0, done.stderr
            small.check_whole(undisturbed.outputs)
            start_over(small)
        count(kind, "resumed, and the same to the byte")
    done = small.train()
    assert done.returncode == 0, done.stderr
    small.check_whole(undisturbed.outputs)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_at_random_moments(small, undisturbed, sent):
    random = drawn(f"signal {sent}")
    start_over(small)
    for _ in range(times(8)):
        process = small.begin()
        try:
            _, said = process.communicate(timeout=random.uniform(0.1, undisturbed.seconds))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, sent)
            _, said = process.communicate(timeout=_PATIENCE_S)
        if process.returncode == 0:
            small.check_whole(undisturbed.outputs)
            start_over(small)
            count(sent.name, "too late: the run had ended")
            continue
        assert "Traceback" not in said, said
        # Before the launcher has begun, a signal ends it as it ends any program.
        assert process.returncode in (130, -sent, 128 + sent), (process.returncode, said)
        assert small.processes() == []
        small.check_nothing_half_looks_whole()
        count(sent.name, "stopped, resumed, and the same to the byte")
    done = small.train()
    assert done.returncode == 0, done.stderr
    small.check_whole(undisturbed.outputs)


def test_a_second_ctrl_c_ends_it_at_once(small, undisturbed):
    random = drawn("second ctrl-c")
    start_over(small)
    for _ in range(times(4)):
        process = small.begin()
        try:
            process.communicate(timeout=random.uniform(0.3, 0.9) * undisturbed.seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGINT)
            time.sleep(random.uniform(0, 0.3))
            os.kill(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=_PATIENCE_S)
            assert process.returncode in (130, -signal.SIGINT), said
            assert "Traceback" not in said, said
            assert small.processes() == []
        count("two Ctrl-C", "resumed, and the same to the byte")
    done = small.train()
    assert done.returncode == 0, done.stderr
    small.check_whole(undisturbed.outputs)
