"""Terminals, homes, disks and names that are not as usual: a sentence or a plainer picture, and
never a traceback.
"""

import os
import pty
import subprocess
import sys
from contextlib import contextmanager

import pytest

from launcher.project import ROOT
from tests.conftest import clean_environment, fresh_copy, invoke

# Of an owner who has to keep to permissions, as root need not.
PLAIN_USER = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []


def invoke_as_plain_user(project, *words, **more):
    return subprocess.run(
        [*PLAIN_USER, str(project / "invoke"), *words],
        cwd=project,
        env=clean_environment(**more),
        capture_output=True,
        text=True,
        check=False,
    )


def sentence(done):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("affineur: ")]
    assert said, done.stderr
    return said[-1]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_few_characters_gets_marks_that_it_has(plain_project, encoding):
    words = [str(plain_project / "invoke"), "doctor", "--profile", "smoke", "--engine", "local"]
    environment = clean_environment(PYTHONIOENCODING=encoding)
    done = subprocess.run(
        words, cwd=plain_project, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert "+ ok    python" in done.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_name_that_it_cannot_show_is_shown_by_its_numbers(plain_project, encoding):
    name = "données→\u4f60.jsonl"
    done = subprocess.run(
        [str(plain_project / "invoke"), "plan", "--profile", "smoke", "--data", name],
        cwd=plain_project,
        env=clean_environment(PYTHONIOENCODING=encoding),
        capture_output=True,
        encoding=encoding,
        check=False,
    )
    shown = "donn\\xe9es" if encoding == "ascii" else "données"
    assert f"dataset_path: {shown}->\\u4f60.jsonl does not exist" in sentence(done)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_bars_and_spinners_on_a_terminal(encoding):
    code = (
        "from contract.events import Progress\n"
        "from launcher.display import Display\n"
        "from launcher.error_messages import exit_on_error\n"
        "with exit_on_error(SystemExit):\n"
        "    display = Display()\n"
        "    display.note('a → b … “c”')\n"
        "    with display.working('train', 'x') as line:\n"
        "        line.on_event(Progress(doing='training', done=1, total=2, unit='steps'))\n"
        "        line._live.refresh()\n"
    )
    ours, theirs = pty.openpty()
    environment = clean_environment(PYTHONIOENCODING=encoding, TERM="xterm", COLUMNS="100")
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = read_all(ours)
        assert process.wait() == 0, shown
    shown = shown.decode(encoding)
    assert "\\u" not in shown
    assert "\\x" not in shown
    if encoding == "utf-8":
        assert "a → b … “c”" in shown
        assert "✓" in shown
    else:
        assert 'a -> b ... "c"' in shown
        assert shown.isascii() or encoding == "latin-1"
        assert "-" * 10 in shown
    assert "1/2 steps" in shown


def read_all(terminal):
    """What comes out of a terminal until nobody writes to it."""
    read = b""
    try:
        while piece := os.read(terminal, 4096):
            read += piece
    except OSError:
        # Linux says so of a terminal that is closed.
        pass
    os.close(terminal)
    return read


@pytest.mark.parametrize("home", [None, "/nonexistent"])
def test_a_machine_without_a_home_needs_none(plain_project, home):
    kept = {name: os.environ[name] for name in ("PATH", "AFFINEUR_ENVIRONMENT")}
    environment = {**kept, "DOCKER_HOST": "unix:///no/engine.sock"}
    done = subprocess.run(
        [str(plain_project / "invoke"), "doctor", "--profile", "smoke", "--engine", "local"],
        cwd=plain_project,
        env=environment | ({} if home is None else {"HOME": home}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


_LONG = "a" * 300


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "--set", f"output_model_name={_LONG}"], "at most 60 characters in each part"),
        (["plan", "--data", f"{_LONG}.jsonl"], "File name too long. Use a shorter name."),
        (["plan", "--set", f"model_to_fine_tune={_LONG}"], "File name too long"),
        (["plan", "--config", _LONG], "File name too long"),
        (["plan", "--data", "~nobody-of-this-name/a.jsonl"], "that user has no home here"),
        (["promote", "--model", "a", "--role", _LONG], "has no role"),
        (["build", "--cache", _LONG], "File name too long"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{value[0]} {value[1]}",
)
def test_a_name_too_long_or_of_nobody_is_a_sentence(plain_project, words, said):
    profile = ["--profile", "smoke"] if words[0] == "plan" else []
    assert said in sentence(invoke(plain_project, *words, *profile))


@contextmanager
def read_only(folder):
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("place", ["data", "data/cache"])
def test_a_folder_of_data_that_is_not_writable_is_named(tmp_path, place):
    clone = fresh_copy(tmp_path / "clone")
    (clone / place).mkdir(exist_ok=True)
    with read_only(clone / place):
        done = invoke_as_plain_user(clone, "train", "--profile", "smoke", "--engine", "local")
    said = sentence(done)
    assert "data/cache" in said
    assert "Permission denied. Check its owner and permissions (ls -l)." in said


def test_a_cache_on_a_disk_that_is_not_there_is_named(tmp_path):
    # As where data/cache was moved to a larger disk, which is not mounted now.
    clone = fresh_copy(tmp_path / "clone")
    (clone / "data" / "cache").symlink_to(tmp_path / "not mounted")
    done = invoke(clone, "train", "--profile", "smoke", "--engine", "local")
    assert "data/cache: File exists. Move it away, or, where it is a link, see" in sentence(done)
