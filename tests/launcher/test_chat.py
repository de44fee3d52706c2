"""A conversation in the terminal: real HTTP to a server that speaks Ollama's /api/chat, real pipes,
a real terminal.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from contextlib import contextmanager

import pytest

from launcher.interruption import CtrlC, ctrl_c_ends_block, ctrl_c_ignored
from launcher.project import ROOT
from tests.conftest import clean_environment
from tests.launcher.made_runs import make_run
from tests.stand_in import SILENCE, says

PATIENCE_S = 20
# As tasks.py calls it, in the tests' own environment.
CHAT = """
import sys
from pathlib import Path
from launcher.error_messages import exit_on_error
from launcher.pipeline import finished_run
finished_run.MODELS = Path(sys.argv[3])

def leave(text, code):
    print(text, file=sys.stderr)
    return SystemExit(code)

with exit_on_error(leave):
    from launcher.cli import run_commands
    run_commands.chat(sys.argv[1], beside=sys.argv[2], ollama="host", engine="local")
"""


@pytest.fixture
def chat(ollama_server, tmp_path):
    """The words that start a conversation, and their environment."""

    def words(model="m", beside=""):
        environment = clean_environment(
            OLLAMA_HOST=ollama_server.address,
            XDG_CACHE_HOME=os.environ["XDG_CACHE_HOME"],
            TERM="dumb",
            PYTHONPATH=str(ROOT),
        )
        command = [sys.executable, "-c", CHAT, model, beside, str(tmp_path / "models")]
        return {"args": command, "env": environment, "cwd": tmp_path}

    return words


@pytest.fixture
def answers(ollama):
    """A server with the models `m` and `b`, which say which question of theirs it is."""
    ollama.make("m", "m")
    ollama.make("b", "b")

    def reply(asked):
        model, messages = asked.json["model"], asked.json["messages"]
        ollama.questions.append(model)
        content = f"{model} says {len(messages)}: {messages[-1]['content']}"
        message = {"role": "assistant", "content": content}
        return says({"message": message, "done_reason": "stop"})

    ollama._chat = reply
    return ollama


def piped(chat, text, **models):
    return subprocess.run(
        **chat(**models),
        input=text if isinstance(text, bytes) else text.encode(),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )


def asked_of(server, model):
    """The conversations that a model was asked to go on with."""
    sent = [asked.json for asked in server.asked if asked.path == "/api/chat"]
    return [
        [turn["content"] for turn in request["messages"]]
        for request in sent
        if request["model"] == model
    ]


def test_each_line_of_a_pipe_is_a_question_of_one_conversation(chat, answers, ollama_server):
    done = piped(chat, "où ?\n\n  et là ?\r\net ici ?")
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode()
    assert "m says 1: où ?" in said
    assert "m says 3: et là ?" in said
    first = ["où ?", "m says 1: où ?"]
    second = ["et là ?", "m says 3: et là ?"]
    assert asked_of(ollama_server, "m") == [
        first[:1],
        [*first, second[0]],
        [*first, *second, "et ici ?"],
    ]
    assert "> " not in said
    # As everything that is compared is asked.
    options = ollama_server.asked[-1].json["options"]
    assert options == {"temperature": 0, "seed": 0, "num_predict": 1024}


def test_two_models_answer_one_under_the_other_each_with_its_own_past(chat, answers, ollama_server):
    done = piped(chat, "q1\nq2", beside="b:latest")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.decode().splitlines() if line.strip()]
    names, texts = lines[::2], [line.strip() for line in lines[1::2]]
    assert [name.split()[0] for name in names] == ["m", "b", "m", "b"]
    assert all(name.split()[-1] == "s" and float(name.split()[1]) >= 0 for name in names)
    assert texts == ["m says 1: q1", "b says 1: q1", "m says 3: q2", "b says 3: q2"]
    assert asked_of(ollama_server, "b")[1] == ["q1", "b says 1: q1", "q2"]


def test_it_begins_anew_and_ends_where_it_is_told(chat, answers, ollama_server):
    done = piped(chat, "q1\n/reset\nq2\n/quit\nq3\n")
    assert done.returncode == 0, done.stderr
    assert asked_of(ollama_server, "m") == [["q1"], ["q2"]]


def test_a_model_of_a_run_has_the_runs_longest_answer(chat, answers, ollama_server, tmp_path):
    make_run(tmp_path / "models", "m", "aaaa", settings=["num_predict=77"])
    assert piped(chat, "q").returncode == 0
    assert ollama_server.asked[-1].json["options"]["num_predict"] == 77


@pytest.mark.parametrize(
    ("made", "remedy"), [(False, "Available: b:latest, m:latest."), (True, "")]
)
@pytest.mark.parametrize("beside", [False, True])
def test_a_model_that_is_not_there_is_a_sentence(
    chat, answers, ollama_server, tmp_path, made, remedy, beside
):
    if made:
        make_run(tmp_path / "models", "x", "aaaa")
        remedy = "Import it: ./invoke import --model x."
    models = {"model": "m", "beside": "x"} if beside else {"model": "x"}
    done = piped(chat, "q", **models)
    assert done.returncode == 2
    said = done.stderr.decode().splitlines()[-1]
    assert said == f"affineur: Ollama: {ollama_server.address} has no model x. {remedy}"
    assert not asked_of(ollama_server, "m")


def test_the_base_of_a_model_that_was_not_made_here_is_a_sentence(chat, answers):
    done = piped(chat, "q", beside="base")
    assert done.returncode == 2
    assert b"--beside base: m has no finished run here" in done.stderr


def test_a_base_that_is_the_servers_is_asked_by_its_name(chat, answers, ollama_server, tmp_path):
    base = {"source": "b of Ollama", "revision": None, "digest": "0", "files": {}}
    settings = ["model_to_fine_tune=b"]
    make_run(tmp_path / "models", "m", "aaaa", settings=settings, base=base)
    done = piped(chat, "q", beside="base")
    assert done.returncode == 0, done.stderr
    assert asked_of(ollama_server, "b") == [["q"]]


def test_without_a_server_there_is_a_sentence(chat, ollama_server):
    ollama_server.shutdown()
    ollama_server.server_close()
    done = piped(chat, "q")
    assert done.returncode == 2
    assert b"no server responds at" in done.stderr
    assert b"ollama serve" in done.stderr


def test_a_line_that_is_no_text_is_a_sentence(chat, answers):
    done = piped(chat, b"q\n\xff\xfe\n")
    assert done.returncode == 2
    assert b"standard input: line 2 is not UTF-8" in done.stderr
    assert b"m says 1: q" in done.stdout


def test_what_ends_an_answer_early_is_said_and_an_answer_moves_no_cursor(chat, answers):
    message = {"role": "assistant", "content": "\x1b[2Ja\r\nb"}
    answers.instead["chat"] = says({"message": message, "done_reason": "length"})
    said = piped(chat, "q").stdout.decode()
    assert "\x1b" not in said
    assert "  \ufffd[2Ja\n  b\n" in said
    assert "(the answer was cut off at its longest)" in said


def test_a_refusal_ends_what_nobody_types(chat, answers):
    answers.instead["chat"] = says({"error": "no room"}, 500)
    done = piped(chat, "q\nq\n")
    assert done.returncode == 2
    assert done.stderr.decode().count("no room") == 1


def test_ctrl_c_ends_a_block_as_often_as_it_comes_and_nothing_else():
    before = signal.getsignal(signal.SIGINT)
    for _ in range(2):
        with pytest.raises(CtrlC), ctrl_c_ends_block():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is before
    with ctrl_c_ignored():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(CtrlC), ctrl_c_ends_block():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ctrl_c_ends_block():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


class Terminal:
    """Somebody's terminal."""

    def __init__(self, process, end):
        self.process, self.end, self.said, self.seen = process, end, b"", 0

    def until(self, text):
        """Read on until something is there, behind what was read so before."""
        while text not in self.said[self.seen :]:
            there, _, _ = select.select([self.end], [], [], PATIENCE_S)
            assert there, f"{text!r} did not come behind {self.said!r}"
            self.said += os.read(self.end, 4096)
        self.seen = self.said.index(text, self.seen) + len(text)

    def type(self, text):
        os.write(self.end, text)

    def insist(self, key, text):
        """Press a key until something is there: readline may be about to read, and not hear it."""
        for _ in range(PATIENCE_S):
            self.type(key)
            while select.select([self.end], [], [], 1)[0]:
                self.said += os.read(self.end, 4096)
            if text in self.said[self.seen :]:
                break
        self.until(text)

    def leave(self):
        """The exit code, once all is read."""
        try:
            while part := os.read(self.end, 4096):
                self.said += part
        except OSError:
            # Closed at the other end.
            pass
        return self.process.wait(PATIENCE_S)


@contextmanager
def at_terminal(words):
    end, inside = pty.openpty()

    def take_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        **words,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(inside)
    try:
        yield Terminal(process, end)
    finally:
        process.kill()
        process.wait()
        os.close(end)


def test_ctrl_c_stops_an_answer_and_ctrl_d_ends(chat, answers, ollama_server):
    with at_terminal(chat(beside="b")) as terminal:
        terminal.until(b"> ")
        answers.instead["chat"] = SILENCE
        terminal.type(b"q1\n")
        assert ollama_server.silent.wait(PATIENCE_S)
        terminal.type(b"\x03")
        terminal.until(b"Stopped; this question is forgotten.")
        # The server is told.
        assert ollama_server.left.wait(PATIENCE_S)
        terminal.until(b"> ")
        del answers.instead["chat"]
        terminal.type(b"q2\n")
        terminal.until(b"b says 1: q2")
        terminal.until(b"> ")
        # At the prompt it takes the line back, and ends nothing.
        terminal.type(b"half")
        terminal.until(b"half")
        terminal.insist(b"\x03", b"> ")
        terminal.type(b"q3\n")
        terminal.until(b"b says 3: q3")
        terminal.until(b"> ")
        terminal.type(b"\x04")
        assert terminal.leave() == 0
    assert asked_of(ollama_server, "m")[1:] == [["q2"], ["q2", "m says 1: q2", "q3"]]


def test_a_refusal_is_said_and_the_next_question_is_asked(chat, answers, ollama_server):
    with at_terminal(chat()) as terminal:
        terminal.until(b"> ")
        answers.instead["chat"] = says({"error": "no room"}, 500)
        terminal.type(b"q1\n")
        terminal.until(b"no room")
        terminal.until(b"> ")
        del answers.instead["chat"]
        terminal.type(b"q2\n")
        terminal.until(b"m says 1: q2")
        terminal.until(b"> ")
        terminal.type(b"/quit\n")
        assert terminal.leave() == 0
    assert asked_of(ollama_server, "m")[-1] == ["q2"]


def test_a_system_that_shuts_down_ends_it(chat, answers, ollama_server):
    with at_terminal(chat()) as terminal:
        terminal.until(b"> ")
        answers.instead["chat"] = SILENCE
        terminal.type(b"q1\n")
        assert ollama_server.silent.wait(PATIENCE_S)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.leave() == 130
    assert b"forgotten" not in terminal.said
