"""Questions are asked once, several at a time, and what was answered is never lost."""

import threading
import time

import pytest

from contract.errors import UserError
from launcher.evaluate.response_cache import ResponseCache
from launcher.serving.chat_model import Answer


class Echo:
    """Answers with the question; counts, and can go away."""

    name, digest, by = "echo", "0", "echo"

    def __init__(self, *, gone_after=None, wait_s=0.0):
        self.asked, self.able, self.bounds, self.at_once, self.most = [], [], [], 0, 0
        self._gone_after, self._wait_s, self._lock = gone_after, wait_s, threading.Lock()

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


def test_an_interrupted_evaluation_keeps_what_was_on_its_way(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    echo = Echo(wait_s=0.02)
    with pytest.raises(KeyboardInterrupt):
        sheet(tmp_path / "a").ask(echo, 4, interrupt)
    assert 20 - sheet(tmp_path / "a").missing == len(echo.asked)
