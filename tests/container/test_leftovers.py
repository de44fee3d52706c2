"""What is left of a container whose launcher is stopped, hung up on or killed: nothing.

Launchers are real processes (tests/odd_container.py), and what they run is a piece of Python.
"""

import shutil
import signal
import subprocess
import sys
import time

import pytest

from launcher.display import Display, terminal
from launcher.project import ROOT
from launcher.runtime.docker_engine import DockerEngine
from launcher.runtime.exclusive_lock import exclusive_lock
from launcher.runtime.live_launchers import LiveLaunchers
from tests.container.conftest import ours, probe, written
from tests.launcher.test_interruption import PATIENCE_S, eventually

# What trainer/entrypoint.py does for a stage: it stops in good order, told by a signal or by the
# end of its standard input.
UNTIL_STOPPED = """
import signal, threading
def stop(*_):
    raise KeyboardInterrupt
def watch():
    while sys.stdin.buffer.raw.read(1):
        pass
    os.kill(1, signal.SIGTERM)
signal.signal(signal.SIGTERM, stop)
launch()
threading.Thread(target=watch, daemon=True).start()
open('/affineur/out/ready', 'w').close()
try:
    while True:
        time.sleep(0.05)
except KeyboardInterrupt:
    open('/affineur/out/saved', 'w').close()
    sys.exit(130)
"""
# It hears nothing: it is stopped by whoever finds it.
DEAF = """
import signal
signal.signal(signal.SIGTERM, lambda *_: (open('/affineur/out/told', 'w').close(), os._exit(0)))
open('/affineur/out/ready', 'w').close()
while True:
    time.sleep(0.05)
"""
SLOW_TO_STOP = """
import signal
signal.signal(signal.SIGTERM, lambda *_: open('/affineur/out/stopping', 'w').close())
open('/affineur/out/ready', 'w').close()
while True:
    time.sleep(0.05)
"""


def start(folder, code):
    """A launcher of the code, as a terminal starts one."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.odd_container", str(folder), code],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def launch(engine, run):
    started = []

    def begin(code, folder=run):
        (written(folder) / "ready").unlink(missing_ok=True)
        process = start(folder, code)
        started.append(process)
        eventually((written(folder) / "ready").exists)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()
    for container in ours(engine):
        container.remove(force=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_launcher_that_is_told_to_stop_leaves_no_container(engine, launch, run, number):
    process = launch(UNTIL_STOPPED)
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert (written(run) / "saved").exists()
    assert ours(engine) == []


def test_a_second_ctrl_c_kills_the_container_at_once(engine, launch, run):
    process = launch(SLOW_TO_STOP)
    process.send_signal(signal.SIGINT)
    eventually((written(run) / "stopping").exists)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 130, said
    assert said.count("killing what still runs") == 1
    assert "Traceback" not in said
    assert ours(engine) == []


def test_ctrl_c_again_and_again_while_a_container_is_made_leaves_none(engine, launch, run):
    # Whatever moment it is: no container, and no traceback.
    for _ in range(5):
        process = start(run, SLOW_TO_STOP)
        eventually(lambda process=process: ours(engine) or process.poll() is not None)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        said = process.stderr.read()
        # A shell says 130 of both: the interpreter, as it ends, takes our handlers away.
        assert process.returncode in {130, -signal.SIGINT}, said
        assert "Traceback" not in said
        assert ours(engine) == []


def test_a_stage_whose_launcher_was_killed_stops_by_itself_and_is_removed(engine, launch, run):
    process = launch(UNTIL_STOPPED)
    process.kill()
    eventually((written(run) / "saved").exists)
    (left,) = ours(engine)
    eventually(lambda: left.reload() or left.status == "exited")
    engine.sweep(Display(quiet=True))
    assert ours(engine) == []


def test_what_a_killed_launcher_left_running_is_stopped_in_good_order(engine, launch, run, capfd):
    process = launch(DEAF)
    (left,) = ours(engine)
    # Its launcher lives.
    engine.sweep(Display(quiet=True))
    assert left.name in [container.name for container in ours(engine)]
    process.kill()
    process.wait()
    engine.sweep(Display(console=terminal(stderr=True)))
    assert (written(run) / "told").exists()
    assert ours(engine) == []
    said = capfd.readouterr().err
    assert f"stopping container {left.name}, left behind by a killed launcher" in said


def test_whoever_holds_the_folder_stops_what_still_works_in_it(
    engine, launch, run, tmp_path, monkeypatch
):
    """Also where the dead launcher's own file cannot be seen: it was another container's."""
    process = launch(DEAF)
    process.kill()
    process.wait()
    elsewhere = DockerEngine()
    monkeypatch.setattr(
        elsewhere, "_launchers", LiveLaunchers(engine.facts().identity, tmp_path / "none")
    )
    elsewhere.sweep(Display(quiet=True))
    assert len(ours(engine)) == 1
    # A copy of the folder is another folder.
    copy = shutil.copytree(run, tmp_path / "copy")
    with exclusive_lock(copy):
        elsewhere.sweep(Display(quiet=True))
    assert len(ours(engine)) == 1
    with exclusive_lock(run):
        elsewhere.sweep(Display(quiet=True))
    assert (written(run) / "told").exists()
    assert ours(engine) == []


def test_a_strangers_container_of_our_image_is_left_alone(engine, run):
    image = engine.image("rtx", None).digest
    labels = {"dev.affineur.project": "affineur", "dev.affineur.launcher": "box:1"}
    stranger = engine._client.containers.create(image, ["true"], labels=labels)
    try:
        with exclusive_lock(run):
            engine.sweep(Display(quiet=True))
        stranger.reload()
    finally:
        stranger.remove()


def test_what_is_recorded_is_what_runs(engine, run):
    """Another clone's image may take the tag between the two."""
    image = engine.image("rtx", None).digest
    other = engine._client.containers.create(image, ["true"])
    try:
        moved = other.commit("affineur/trainer", "rtx", changes="ENV AFFINEUR_OTHER=yes")
    finally:
        other.remove()
    try:
        values, _ = probe(engine, run, "say(other=os.environ.get('AFFINEUR_OTHER'))", image=image)
        (by_tag, _) = probe(
            engine, run, "say(other=os.environ.get('AFFINEUR_OTHER'))", image=moved.id
        )
    finally:
        engine._client.images.get(image).tag("affineur/trainer", "rtx")
        engine._client.images.remove(moved.id)
    assert values == {"other": None}
    # The other one would have told.
    assert by_tag == {"other": "yes"}


def test_a_job_without_an_image_is_a_bug(engine, run):
    with pytest.raises(ValueError, match="has to name the image"):
        probe(engine, run, "say(a=1)", image=None)
