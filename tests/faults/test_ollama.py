"""An Ollama server that fails at any request of an import: a sentence, and the next one ends well.

The server is a real one. Between it and the launcher stands one of ours, which passes everything on
but for one request. Needs `ollama`, as tests/serving does.
"""

import re
import signal
import time
from threading import Lock

import pytest
import requests

from launcher.pipeline.finished_run import Run
from launcher.serving.ollama_server import OllamaServer
from tests.conftest import begin, invoke
from tests.faults.conftest import NAME, count, drawn, start_over, times
from tests.serving.conftest import Ollama, programs, temporary
from tests.stand_in import DROP, SILENCE, Reply, StandIn, running

_PATIENCE_S = 300
_PAGE = b"<!doctype html><title>Sign in</title><p>Please sign in to this network.</p>"
_HTML = {"Content-Type": "text/html"}
# What is answered in place of the server's answer.
_ANSWERS = {
    "drops the connection": DROP,
    "answers HTML": Reply(200, _PAGE, _HTML),
    "answers an error page": Reply(502, _PAGE, _HTML),
    "redirects": Reply(302, b"", {"Location": "http://127.0.0.1:9/"}),
}


class Between:
    """Passes requests on to the real server, and does something else at the one of a number."""

    def __init__(self, server):
        self._server, self._lock = server, Lock()
        self.pass_on()

    def pass_on(self):
        """Everything, from now on."""
        self.do_at(-1, lambda: None)

    def do_at(self, number, fault):
        """At the request of this number, counted from now; where `fault` says nothing, it is passed
        on even then.
        """
        self.count, self._at, self._fault = 0, number, fault

    def __call__(self, asked):
        with self._lock:
            mine, self.count = self.count, self.count + 1
        if mine == self._at and (answer := self._fault()) is not None:
            return answer
        try:
            got = requests.request(
                asked.method,
                f"http://{self._server.host}{asked.path}",
                data=asked.body,
                headers={"Content-Type": asked.headers.get("Content-Type", "application/json")},
                timeout=_PATIENCE_S,
            )
        except requests.RequestException:
            return DROP
        kept = {name: value for name, value in got.headers.items() if name == "Content-Type"}
        return Reply(got.status_code, got.content, kept)


@pytest.fixture(scope="module")
def finished(small, undisturbed):
    """The run, whole."""
    start_over(small)
    done = small.train()
    assert done.returncode == 0, done.stderr
    small.check_whole(undisturbed.outputs)
    return small


class Ground:
    """A real server, what stands before it, and what an import makes there undisturbed."""

    def __init__(self, run, server, between, stand_in):
        self.run, self.server, self.between, self.stand_in = run, server, between, stand_in
        self.connected = OllamaServer(f"http://{server.host}", "any")
        done = self.finish()
        assert done.returncode == 0, done.stderr
        self.requests = between.count
        self.digest = self.connected.digest(NAME)
        self.start_over()

    def begin(self):
        return begin(self.run.project, "import", "--model", NAME, OLLAMA_HOST=self.host)

    def finish(self):
        self.between.pass_on()
        return invoke(self.run.project, "import", "--model", NAME, OLLAMA_HOST=self.host)

    @property
    def host(self):
        return self.stand_in.address

    def start_over(self):
        """Where the server has the model, it has it no longer, nor its files."""
        self.connected.delete(NAME)
        assert self.connected.models() == {}

    def ends_well(self):
        """The next import does, and there is nothing else on the server."""
        done = self.finish()
        assert done.returncode == 0, done.stderr
        assert self.connected.digest(NAME) == self.digest
        assert temporary(self.connected) == []
        assert self.run.processes() == []
        self.start_over()


@pytest.fixture(scope="module", params=programs(), ids=lambda path: path.split("/")[-3:][0])
def ground(request, finished, tmp_path_factory):
    server = Ollama(request.param, tmp_path_factory.mktemp("ollama") / "home")
    between = Between(server)
    try:
        server.start()
        with running(StandIn(between)) as stand_in:
            yield Ground(finished, server, between, stand_in)
    finally:
        server.kill()


def is_said(process):
    """How the import ended: well, where the request did not matter, or with a sentence."""
    _, said = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode in (0, 2), (process.returncode, said)
    assert "Traceback" not in said, said
    if process.returncode == 0:
        return "it did not matter"
    assert "Ollama" in said, said
    return "said, and imported by the next command"


@pytest.mark.parametrize("what", list(_ANSWERS))
def test_a_server_that_answers_otherwise(ground, what):
    random = drawn(f"ollama {what}")
    for _ in range(times(4)):
        ground.between.do_at(random.randrange(ground.requests), lambda: _ANSWERS[what])
        ended = is_said(ground.begin())
        ground.ends_well()
        count(f"an Ollama that {what}", ended)


def test_a_server_that_dies(ground):
    random = drawn("ollama dies")
    for _ in range(times(4)):
        ground.between.do_at(random.randrange(ground.requests), ground.server.kill)
        ended = is_said(ground.begin())
        ground.server.start()
        ground.ends_well()
        count("an Ollama that dies", ended)


def test_a_server_that_falls_silent(ground):
    """Whoever waits presses Ctrl-C, or is told after some seconds."""
    random = drawn("ollama silent")
    for _ in range(times(4)):
        ground.stand_in.silent.clear()
        ground.between.do_at(random.randrange(ground.requests), lambda: SILENCE)
        process = ground.begin()
        assert ground.stand_in.silent.wait(_PATIENCE_S)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=_PATIENCE_S)
        assert process.returncode == 130, said
        assert "Traceback" not in said, said
        ground.ends_well()
        count("an Ollama that falls silent, and Ctrl-C", "imported by the next command")


def test_a_connection_that_is_dropped_in_an_upload(ground):
    random = drawn("ollama upload")
    blobs = Run(ground.run.folder).files.blobs
    for _ in range(times(4)):
        file, digest = random.choice(sorted(blobs.items()))
        size = (Run(ground.run.folder).files.folder / file).stat().st_size
        ground.between.pass_on()
        # Also the question whether it is there.
        ground.stand_in.cut[f"/api/blobs/{digest}"] = random.randrange(size)
        process = ground.begin()
        ended = is_said(process)
        assert process.returncode == 2
        ground.stand_in.cut.clear()
        ground.ends_well()
        count("an Ollama that drops an upload", ended)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_launcher_that_ends_in_an_import(ground, sent):
    random = drawn(f"import {sent}")
    for _ in range(times(4)):
        begun = []
        at = random.randrange(ground.requests)
        ground.between.do_at(at, lambda begun=begun: begun[0].send_signal(sent))
        begun.append(ground.begin())
        _, said = begun[0].communicate(timeout=_PATIENCE_S)
        assert begun[0].returncode in (-sent, 130, 0), said
        assert "Traceback" not in said, said
        ground.ends_well()
        count(f"{signal.Signals(sent).name} in an import", "imported by the next command")


def test_two_imports_at_once(ground):
    random = drawn("two imports")
    for _ in range(times(3)):
        ground.between.pass_on()
        first = ground.begin()
        time.sleep(random.uniform(0, 2))
        second = ground.begin()
        for process in (first, second):
            _, said = process.communicate(timeout=_PATIENCE_S)
            assert process.returncode == 0, said
        ground.ends_well()
        count("two imports of one name at once", "one after the other")


def test_a_run_that_is_trained_during_its_import(ground):
    """It is in use: the training is told to wait, or has nothing to do."""
    process = ground.begin()
    done = ground.run.train()
    _, said = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 0, said
    assert done.returncode == 0 or re.search("is in use by another", done.stderr), done.stderr
    ground.ends_well()
    count("a training and an import of one run at once", "both ended well")


def test_a_server_that_is_started_again_during_an_import(ground):
    """As a machine does that updates Ollama: the answer is cut off, and the next one comes."""
    random = drawn("ollama again")
    for _ in range(times(3)):

        def again():
            ground.server.kill()
            ground.server.start()

        ground.between.do_at(random.randrange(ground.requests), again)
        process = ground.begin()
        ended = is_said(process)
        ground.ends_well()
        count("an Ollama that is started again", ended)
