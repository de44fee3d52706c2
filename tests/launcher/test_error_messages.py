"""What people read: sentences, durations, bars, lengths, next steps."""

import errno
import io

import pytest
from rich.console import Console

from contract.errors import Problem, UserError
from contract.events import Note, Progress
from contract.results.prepare import PrepareResult
from launcher.cli import data_report
from launcher.cli.data_report import histogram
from launcher.cli.summary import sparkline
from launcher.configuration import resolve
from launcher.display import Display, duration, terminal
from launcher.error_messages import exit_on_error
from launcher.serving import ollama_address, ollama_server
from tests.stand_in import Reply


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.44, "0.4 s"),
        (46.6, "47 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_one_problem_is_one_sentence():
    error = UserError.one("data.jsonl:3", "is not valid JSON", 'Write \\".')
    assert error.text() == 'affineur: data.jsonl:3: is not valid JSON. Write \\".'


def test_what_the_system_refuses_is_a_sentence_and_a_bug_is_not():
    left = []
    with (
        pytest.raises(SystemExit),
        exit_on_error(lambda *words: left.append(words) or SystemExit()),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "data/cache")
    assert left == [
        (
            "affineur: data/cache: Permission denied. Check its owner and permissions (ls -l).",
            2,
        )
    ]
    with pytest.raises(FileNotFoundError), exit_on_error(lambda *words: SystemExit()):
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")


def test_many_problems_are_counted_and_bounded():
    error = UserError([Problem(where=f"x:{n}", what="is bad") for n in range(1000)])
    lines = error.text().splitlines()
    assert lines[0] == "affineur: 1000 problems"
    assert lines[-1] == "  ... and 980 more"


def test_a_falling_loss_looks_like_one():
    assert sparkline([4, 3, 2, 1], width=4) == "█▆▃▁"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert len(sparkline([float(n) for n in range(1000)], width=40)) == 40


def test_the_histogram_counts_every_row_once_and_marks_the_cut():
    lines = histogram([10, 11, 12, 50, 51, 300], 256)
    counts = [
        int(line.split("truncated")[0].split()[-1]) for line in lines if line.split()[-1] != ""
    ]
    assert sum(counts) == 6
    assert [("truncated at 256" in line) for line in lines][-1]
    assert "truncated" not in lines[0]


def test_a_histogram_of_equal_lengths_is_one_bar():
    assert len(histogram([7, 7, 7], 100)) == 1


def report(**more):
    figures = {"min": 5, "median": 5, "p95": 5, "max": 5}
    empty = {name: [] for name in ("cut", "no_room", "duplicates", "conflicts")}
    empty |= {"in_both": [], "laid_out": []}
    counts = {"rows": 2, "train": 1, "held_out": 1, "max_length": 16, "lengths": [5, 5]}
    return PrepareResult(**counts, tokens=figures, answer_tokens=figures, **{**empty, **more})


def shown(found, path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    data_report.show(found, resolve("smoke", data=path), terminal())
    return capsys.readouterr().out


def test_the_data_report_lists_what_was_not_read(monkeypatch, capsys):
    text = shown(report(unread={"id": 800, "messages[].date": 12}), "d.jsonl", monkeypatch, capsys)
    assert "· not read: id (800 rows), messages[].date (12 rows)" in text
    assert "no problem found" not in text
    assert "no problem found" in shown(report(), "d.jsonl", monkeypatch, capsys)


@pytest.mark.parametrize("name", ["tickets [bold].json", "a[/v2]/d.jsonl", "d:100:.jsonl", "[x]\\"])
def test_names_are_shown_as_they_are(monkeypatch, capsys, name):
    found = report(unread={name: 1}, no_room=[name], conflicts=[(name, name)])
    text = shown(found, name, monkeypatch, capsys)
    for line in (f"2 rows  {name}", f"    {name}", f"{name} and {name}", f"not read: {name} (1"):
        assert line in text
    stream = io.StringIO()
    display = Display(console=terminal(file=stream))
    with display.working("prepare", name) as line:
        line.on_event(Note(text=name))
    assert stream.getvalue().count(name) == 2


def test_off_a_terminal_the_display_writes_plain_lines():
    stream = io.StringIO()
    display = Display(console=Console(file=stream, width=80))
    with display.working("train", "started [with brackets]") as line:
        line.on_event(Note(text="a [note]"))
        line.on_event(Progress(doing="training", done=1, total=2, unit="steps"))
    text = stream.getvalue()
    assert "train: started [with brackets]" in text
    assert "a [note]" in text
    assert "\x1b" not in text
    assert "✓ train" in text


def test_a_failed_stage_is_marked():
    stream = io.StringIO()
    display = Display(console=Console(file=stream))
    with pytest.raises(RuntimeError), display.working("merge"):
        raise RuntimeError
    assert "✗ merge" in stream.getvalue()


def test_quiet_is_quiet():
    stream = io.StringIO()
    display = Display(quiet=True, console=Console(file=stream))
    with display.working("train") as line:
        line.on_event(Note(text="x"))
    display.up_to_date("merge")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("localhost:8080", "http://localhost:8080"),
        ("http://box:1234/", "http://box:1234"),
        ("https://box", "https://box:443"),
        ("http://box", "http://box:80"),
        ("https://box:8443/ollama/", "https://box:8443/ollama"),
        (":1234", "http://127.0.0.1:1234"),
        ("'box'", "http://box:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::]:1234", "http://[::1]:1234"),
        ("[fe80::2]", "http://[fe80::2]:11434"),
        ("https://me@box", "https://me@box:443"),
    ],
)
def test_ollamas_address_is_read_as_ollama_reads_it(monkeypatch, given, meant):
    monkeypatch.setenv("OLLAMA_HOST", given)
    assert ollama_address.address() == meant


@pytest.mark.parametrize("given", ["ftp://box", "box:port", "box:99999", "://box", "none://box"])
def test_what_is_no_address_is_a_sentence(monkeypatch, given):
    monkeypatch.setenv("OLLAMA_HOST", given)
    with pytest.raises(UserError, match=r"is not an address of a server"):
        ollama_address.address()


def test_a_server_is_asked_for_its_version(monkeypatch, serve):
    # A stand-in on loopback for the one question that is asked; tests/serving has real servers.
    said = {"/api/version": b'{"version": "0.34.1"}'}
    server = serve(lambda asked: Reply(body=said[asked.path]))
    monkeypatch.setenv("OLLAMA_HOST", server.address)
    assert ollama_server.server_version() == "0.34.1"
    for none in (b"<html>", b"[" * 9_000, b"5", b"{}", b"\xff"):
        said["/api/version"] = none
        assert ollama_server.server_version() is None
    server.shutdown()
    server.server_close()
    assert ollama_server.server_version() is None
