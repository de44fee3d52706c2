"""Questions are asked once, several at a time, and what was answered is never lost."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from contract.errors import UserError
from launcher.display import Display
from launcher.evaluate.evaluated_models import on_server
from launcher.evaluate.response_cache import ResponseCache
from launcher.project import ROOT
from launcher.serving.chat_model import Answer
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.server_choice import OllamaHost
from tests.stand_in import SILENCE


class Echo:
    """Answers with the question; counts, and can go away."""

    name, digest, by = "echo", "0", "echo"

    def __init__(self, *, gone_after=None, wait_s=0.0):
        self.asked, self.able, self.bounds, self.at_once, self.most = [], [], [], 0, 0
        self._gone_after, self._wait_s, self._lock = gone_after, wait_s, threading.Lock()
        self.aborted = threading.Event()

    def abort(self):
        self.aborted.set()

    def ask(self, messages, max_new_tokens, tools=()):
        with self._lock:
            self.able.append(list(tools))
            self.bounds.append(max_new_tokens)
            self.asked.append(messages[0]["content"])
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            gone = self._gone_after is not None and len(self.asked) > self._gone_after
        time.sleep(self._wait_s)
        with self._lock:
            self.at_once -= 1
        if gone:
            raise UserError.one("Echo", "went away")
        return Answer(messages[0]["content"] + "\u2028!", "stop")


def sheet(file, number=20, bound=9):
    return ResponseCache(
        file, [[{"role": "user", "content": f"q{n}"}] for n in range(number)], [bound] * number
    )


def test_answers_come_in_the_order_of_the_questions(tmp_path):
    asked = sheet(tmp_path / "a")
    seen = []
    asked.ask(Echo(wait_s=0.001), 4, lambda done, total: seen.append((done, total)))
    assert [answer.text for answer in asked.answers] == [f"q{n}\u2028!" for n in range(20)]
    assert seen[-1] == (20, 20)


def test_at_most_so_many_are_asked_at_once(tmp_path):
    echo = Echo(wait_s=0.01)
    sheet(tmp_path / "a").ask(echo, 3, lambda done, total: None)
    assert echo.most == 3


def test_a_question_that_stands_twice_is_asked_once(tmp_path):
    twice = ResponseCache(tmp_path / "a", [[{"role": "user", "content": "q"}]] * 2, [9, 9])
    echo = Echo()
    twice.ask(echo, 2, lambda done, total: None)
    assert echo.asked == ["q"]
    assert len(twice.answers) == 2


def test_after_a_server_went_away_only_the_rest_is_asked(tmp_path):
    with pytest.raises(UserError, match="went away"):
        sheet(tmp_path / "a").ask(Echo(gone_after=7), 2, lambda done, total: None)
    again = sheet(tmp_path / "a")
    assert again.missing == 13
    echo = Echo()
    again.ask(echo, 2, lambda done, total: None)
    assert len(echo.asked) == 13
    assert sheet(tmp_path / "a").missing == 0


def test_a_line_that_was_cut_off_is_asked_again_and_spoils_no_other(tmp_path):
    sheet(tmp_path / "a").ask(Echo(), 2, lambda done, total: None)
    text = (tmp_path / "a").read_text(encoding="utf-8")
    (tmp_path / "a").write_text(text[:-9], encoding="utf-8")
    again = sheet(tmp_path / "a")
    assert again.missing == 1
    again.ask(Echo(), 2, lambda done, total: None)
    assert sheet(tmp_path / "a").missing == 0


def test_another_bound_is_another_question(tmp_path):
    sheet(tmp_path / "a").ask(Echo(), 2, lambda done, total: None)
    assert sheet(tmp_path / "a", bound=10).missing == 20


def test_each_question_has_its_own_bound(tmp_path):
    asked = [[{"role": "user", "content": f"q{n}"}] for n in range(3)]
    echo = Echo()
    ResponseCache(tmp_path / "a", asked, [7, 8, 9]).ask(echo, 1, lambda done, total: None)
    assert sorted(zip(echo.asked, echo.bounds, strict=True)) == [("q0", 7), ("q1", 8), ("q2", 9)]
    assert ResponseCache(tmp_path / "a", asked, [7, 8, 10]).missing == 1


def test_other_tools_are_another_question(tmp_path):
    asked = [{"role": "user", "content": "q"}]
    able = {"type": "function", "function": {"name": "f", "parameters": {}}}
    echo = Echo()
    for tools in ([], [able], [able, able], [able]):
        sheet = ResponseCache(tmp_path / "a", [asked], [9], [tools])
        sheet.ask(echo, 1, lambda done, total: None)
    assert echo.able == [[], [able], [able, able]]
    # None is none.
    assert ResponseCache(tmp_path / "a", [asked], [9]).missing == 0


def test_an_interrupted_evaluation_keeps_what_was_answered_and_asks_no_more(tmp_path):
    first = threading.Event()

    class Slow(Echo):
        """Answers once, and is silent until it is told to stop."""

        def ask(self, messages, max_new_tokens, tools=()):
            answer = super().ask(messages, max_new_tokens, tools)
            if messages[0]["content"] != "q0":
                first.set()
                assert self.aborted.wait(60)
                raise UserError.one("Echo", "was told to stop")
            return answer

    def interrupt(_done, _total):
        assert first.wait(60)
        raise KeyboardInterrupt

    slow = Slow()
    with pytest.raises(KeyboardInterrupt):
        sheet(tmp_path / "a").ask(slow, 4, interrupt)
    assert slow.aborted.is_set()
    assert sheet(tmp_path / "a").missing == 19
    # The first one's thread took another question before it was stopped.
    assert len(slow.asked) <= 5


def test_answers_on_their_way_are_kept_where_another_question_fails(tmp_path):
    all_asked = threading.Barrier(4)

    class Partly(Echo):
        def ask(self, messages, max_new_tokens, tools=()):
            all_asked.wait(60)
            if messages[0]["content"] == "q0":
                raise UserError.one("Echo", "refuses this one")
            time.sleep(0.02)
            return super().ask(messages, max_new_tokens, tools)

    with pytest.raises(UserError, match="refuses this one"):
        sheet(tmp_path / "a", number=4).ask(Partly(), 4, lambda done, total: None)
    assert sheet(tmp_path / "a", number=4).missing == 1


@pytest.mark.parametrize(
    "line", [b"5", b"[]", b"{}", b'{"key": "k"}', b"\xff", b'{"key": [], "x": 1}']
)
def test_a_damaged_line_is_asked_again(tmp_path, line):
    sheet(tmp_path / "a").ask(Echo(), 2, lambda done, total: None)
    lines = (tmp_path / "a").read_bytes().split(b"\n")
    (tmp_path / "a").write_bytes(b"\n".join([line, *lines[1:]]))
    assert sheet(tmp_path / "a").missing == 1


# An evaluation's questions, asked as an evaluation asks them: its words are address and file.
_ASKS = """
import sys
from pathlib import Path
from launcher.error_messages import exit_on_error
from launcher.evaluate.evaluated_models import on_server
from launcher.evaluate.response_cache import ResponseCache
from launcher.serving.ollama_server import OllamaServer
def exit_with(text, code):
    print(text, file=sys.stderr)
    return SystemExit(code)
with exit_on_error(exit_with):
    cache = ResponseCache(
        Path(sys.argv[2]), [[{"role": "user", "content": f"q{n}"}] for n in range(20)], [9] * 20
    )
    with on_server(OllamaServer(sys.argv[1], "0.34.1"), "m", None).start() as model:
        cache.ask(model, 4, lambda done, total: None)
"""


@pytest.mark.parametrize("asked_to_stop", [signal.SIGINT, signal.SIGTERM])
def test_one_ctrl_c_ends_an_evaluation_whose_server_is_silent(
    ollama_server, ollama, tmp_path, asked_to_stop
):
    ollama.make("m", "somebody's")
    before = dict(ollama.models)

    def answers_three_and_falls_silent(asked):
        if ollama_server.silent.is_set() or len(ollama.questions) == 3:
            return SILENCE
        return ollama(asked)

    ollama_server.reply = answers_three_and_falls_silent
    file = tmp_path / "answers.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", _ASKS, ollama_server.address, str(file)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert ollama_server.silent.wait(60)
    while sheet(file).missing != 17:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(asked_to_stop)
    # Each answer would be waited for half an hour.
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert ollama_server.left.wait(60)
    assert sheet(file).missing == 17
    ollama_server.reply = ollama
    with OllamaHost(Display(quiet=True)).running():
        assert ollama.models == before


def test_a_model_is_asked_under_a_name_that_nobody_gives_away(ollama_server, ollama, tmp_path):
    ollama.make("m", "one")
    ours = ollama.models["m:latest"]
    ollama.before["chat"] = lambda _asked: ollama.make("m", "another, imported meanwhile")
    asked = sheet(tmp_path / "a")
    with on_server(OllamaServer(ollama_server.address, "0.34.1"), "m", None).start() as model:
        asked.ask(model, 2, lambda done, total: None)
    # Its answer is its digest.
    assert {answer.text for answer in asked.answers} == {ours}
    assert list(ollama.models) == ["m:latest"]
