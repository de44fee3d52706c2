"""A download from the hub that is cut off: it goes on, or is said, and is whole the next time.

No hub can be reached where these tests run: tests/hub.py stands in for one. The client is the real
one.
"""

import json
import shutil
import signal
from threading import Event

import pytest

from contract.digest import digest_of_file
from tests.conftest import begin, invoke
from tests.faults.conftest import count, drawn, times
from tests.hub import hub

# The data report is the shortest way through the launcher to a base from the hub.
_WORDS = ("data", "--profile", "smoke", "--data", "data/training/small.jsonl", "--quiet")
_BASE = ("--set", "model_to_fine_tune=us/tiny")
_PATIENCE_S = 300


def bases(run):
    return run.project / "data" / "cache" / "bases"


@pytest.fixture
def fetched(small, untrained):
    """Says whether the base is in the cache as the hub has it, and takes it out again."""
    # Runs share the cache; this base is nobody else's.
    files = {path.name: digest_of_file(path) for path in untrained.iterdir()}
    folder = bases(small) / "us--tiny@first-fetched"
    shutil.rmtree(folder, ignore_errors=True)

    def check():
        assert json.loads((folder / "base.json").read_text())["files"] == files
        there = {path.name: digest_of_file(path) for path in (folder / "model").iterdir()}
        assert {name: there.get(name) for name in files} == files
        left = [path.name for path in bases(small).iterdir() if path.name.startswith("us--tiny@")]
        assert left == [folder.name]
        assert small.processes() == []
        shutil.rmtree(folder)

    return check


def fetch(small, endpoint):
    return invoke(small.project, *_WORDS, *_BASE, HF_ENDPOINT=endpoint)


def test_a_connection_that_is_dropped_once(small, untrained, fetched):
    """At a random byte of a random file."""
    random, files = drawn("hub dropped"), sorted(path.name for path in untrained.iterdir())
    for _ in range(times(4)):
        victims = [random.choice(files)]

        def cut(name, content, victims=victims):
            if name not in victims:
                return None
            victims.clear()
            return random.randrange(len(content))

        with hub(untrained, files, cut=cut) as (endpoint, _):
            done = fetch(small, endpoint)
            ended = "the download went on by itself"
            if done.returncode != 0:
                assert done.returncode == 2, done.stderr
                assert "could not be downloaded" in done.stderr
                assert "Traceback" not in done.stderr
                ended = "said, and whole the next time"
                done = fetch(small, endpoint)
        assert victims == []
        assert done.returncode == 0, done.stderr
        fetched()
        count("a hub that drops the connection once", ended)


def test_a_connection_that_is_always_dropped(small, untrained, fetched):
    files = sorted(path.name for path in untrained.iterdir())
    for _ in range(times(2)):
        with hub(untrained, files, cut=lambda _, content: len(content) // 2) as (endpoint, _):
            done = fetch(small, endpoint)
        assert done.returncode == 2, done.stderr
        assert "could not be downloaded" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(bases(small).glob("us--tiny@*/base.json"))
        with hub(untrained, files) as (endpoint, _):
            done = fetch(small, endpoint)
        assert done.returncode == 0, done.stderr
        fetched()
        count("a hub that always drops the connection", "said, and whole the next time")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_launcher_that_ends_in_a_download(small, untrained, fetched, sent):
    """While the hub has sent a part of a file, and says no more."""
    random, files = drawn(f"hub {sent}"), sorted(path.name for path in untrained.iterdir())
    for _ in range(times(2)):
        victim, met, over = random.choice(files), Event(), Event()

        def wait(name, content, victim=victim, met=met, over=over):
            if name != victim:
                return None
            met.set()
            over.wait(_PATIENCE_S)
            return random.randrange(len(content))

        with hub(untrained, files, cut=wait) as (endpoint, _):
            process = begin(small.project, *_WORDS, *_BASE, HF_ENDPOINT=endpoint)
            assert met.wait(_PATIENCE_S)
            process.send_signal(sent)
            _, said = process.communicate(timeout=_PATIENCE_S)
            over.set()
        assert process.returncode in (-sent, 130), said
        assert "Traceback" not in said, said
        assert not list(bases(small).glob("us--tiny@*/base.json"))
        with hub(untrained, files) as (endpoint, _):
            done = fetch(small, endpoint)
        assert done.returncode == 0, done.stderr
        fetched()
        count(f"{signal.Signals(sent).name} in a download", "whole the next time")
