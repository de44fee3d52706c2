"""What the launcher writes for TensorBoard is shown by TensorBoard, in a real browser."""

import io
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from contract.events import Metrics
from contract.paths import TRACKING
from launcher.display import Display
from launcher.runtime.environment import ensure_environment
from launcher.tracking.messages import Begin
from launcher.tracking.tracking import Tracking

_DEADLINE_S = 60


@pytest.fixture
def run(tmp_path):
    """A run's folder with the event files of a training."""
    folder = tmp_path / "un modèle" / "0123456789ab"
    folder.mkdir(parents=True)
    begin = Begin(
        trackers=["tensorboard"],
        folder=folder / TRACKING,
        model="un modèle",
        run=folder.name,
        parameters={"learning_rate": 0.003},
        tags={"data": "d" * 64},
        mlflow_uri="",
    )
    display = Display(console=Console(file=io.StringIO()))
    python = ensure_environment("tracking", ["tracking"], Display())
    tracking = Tracking(python, begin, folder / "log", display)
    for step in (5, 10, 15):
        tracking.on_metrics(Metrics(step=step, values={"train/loss": 1 / step}))
    tracking.end("finished")
    assert display.console.file.getvalue() == ""
    return folder


@pytest.fixture
def tensorboard(run):
    """Its address, where it serves the folder that all runs are in."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = ensure_environment("tracking", ["tracking"], Display()).parent / "tensorboard"
    command = [program, "--logdir", run.parents[1], "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def test_a_run_and_its_curve_are_shown(browser, tensorboard, run):
    browser.look_like(width=1280, height=1000, scheme="light")
    deadline_s = time.monotonic() + _DEADLINE_S
    text = ""
    while time.monotonic() < deadline_s and "0.0667" not in text:
        if "TensorBoard" not in text:
            # Before the server answers, the page is the browser's own.
            browser.open(tensorboard)
        time.sleep(1)
        # Tags are cut into parts, each an element. A page that begins has no body yet.
        text = "".join(browser.run("document.body?.innerText ?? ''").split())
    if folder := os.environ.get("AFFINEUR_SCREENSHOTS"):
        browser.screenshot(Path(folder) / "tensorboard.png")
    assert "train/loss" in text
    assert f"unmodèle/{run.name}/tracking/tensorboard" in text
    # The last value of the curve, in the card's table.
    assert "0.0667" in text
