"""Whoever else works on the same server: nobody's model is taken for another's, or lost.

The server is a stand-in, which has a stranger act at the worst moment; the launchers are real
threads and processes.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from contract.errors import UserError
from launcher.display import Display, terminal
from launcher.project import ROOT
from launcher.serving.import_records import ImportRecords
from launcher.serving.model_import import import_run, temporarily_on_server
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.server_choice import OllamaHost
from launcher.serving.temporary_models import temporary_alias, temporary_name
from tests.conftest import invoke
from tests.launcher.conftest import MadeRun
from tests.stand_in import DROP, SILENCE

QUIET = Display(quiet=True)
OURS = re.compile(r"affineur-[a-z0-9]+-[0-9a-f]{12}-[0-9a-f]{6}")


@pytest.fixture
def server(ollama_server):
    return OllamaServer(ollama_server.address, "0.34.1")


def heard():
    """A display, and what it said."""
    said = io.StringIO()
    return Display(console=terminal(file=said, width=300)), said


def temporary(ollama):
    """What there is of ours on the server, for the moment."""
    return [name for name in ollama.models if OURS.match(name)]


def journal(cache):
    return [path.name for path in cache.rglob("affineur-*") if path.is_file()]


@pytest.fixture
def cache():
    return Path(os.environ["XDG_CACHE_HOME"])


def test_a_model_is_imported_and_nothing_else_stays(server, ollama, made_run, cache, ollama_server):
    candidates = []
    imported = import_run(made_run, "m", server, display=QUIET, examine=candidates.append)
    assert ollama.models == {"m:latest": imported.digest}
    assert OURS.fullmatch(candidates[0])
    # Ollama's own bound, which 0.6.5 and 0.34.1 have.
    assert len(candidates[0]) <= 80
    assert journal(cache) == []
    again = import_run(made_run, "m", server, display=QUIET, examine=candidates.append)
    assert (again.digest, again.new, len(candidates)) == (imported.digest, False, 1)


def test_a_name_that_a_stranger_takes_during_the_proof_stays_the_strangers(
    server, ollama, made_run, cache
):
    def examine(_candidate):
        ollama.make("m", "a stranger's")

    with pytest.raises(UserError, match=r"m:latest at http://.* became another model meanwhile"):
        import_run(made_run, "m", server, display=QUIET, examine=examine)
    (digest,) = ollama.models.values()
    assert ImportRecords.of(made_run).model_digest(digest) is None
    assert journal(cache) == []


def test_a_name_that_is_taken_behind_the_copy_is_not_reported_as_ours(server, ollama, made_run):
    def after_the_copy(_asked):
        if "m:latest" in ollama.models:
            ollama.make("m", "a stranger's")

    ollama.before["tags"] = after_the_copy
    with pytest.raises(UserError, match="became another model meanwhile"):
        import_run(made_run, "m", server, display=QUIET)


def test_a_candidate_that_is_not_what_was_proved_gets_no_name(server, ollama, made_run):
    def examine(candidate):
        ollama.make(candidate, "something else")

    with pytest.raises(UserError, match="became another model meanwhile"):
        import_run(made_run, "m", server, display=QUIET, examine=examine)
    assert ollama.models == {}


@pytest.mark.parametrize("name", ["m", "M", "library/m", "registry.ollama.ai/library/m:latest"])
def test_a_strangers_model_is_known_by_all_its_names(server, ollama, made_run, name):
    ollama.make("M" if name == "m" else "m", "a stranger's")
    before = dict(ollama.models)
    with pytest.raises(UserError, match="was not imported by this project"):
        import_run(made_run, name, server, display=QUIET)
    assert ollama.models == before


def test_a_strangers_name_is_refused_before_the_training(clone, ollama, ollama_server):
    ollama.make("affineur-smoke", "a stranger's")
    words = ("train", "--profile", "smoke", "--engine", "local")
    refused = invoke(clone, *words, OLLAMA_HOST=ollama_server.address)
    assert refused.returncode == 2
    assert "affineur-smoke:latest at http://127.0.0.1" in refused.stderr
    assert "was not imported by this project. Use another output_model_name, or --replace." in (
        refused.stderr
    )
    planned = invoke(clone, "plan", *words[1:], OLLAMA_HOST=ollama_server.address)
    assert "train would be refused: Ollama: affineur-smoke:latest" in planned.stderr
    # Before anything was made for it.
    assert not list((clone / "data" / "models").glob("affineur-smoke/*"))
    assert "preflight" not in refused.stderr


def test_names_like_our_old_temporary_ones_are_left_to_whoever_has_them(server, ollama, made_run):
    strangers = ["m:latest-candidate", "m:latest-f16", "m:latest-base"]
    for name in strangers:
        ollama.make(name, f"a stranger's {name}")
    before = dict(ollama.models)
    digest = import_run(made_run, "m", server, display=QUIET).digest
    for use in ("f16", "base"):
        with temporarily_on_server(use, made_run.files, server, display=QUIET, why="") as name:
            assert name in {one.removesuffix(":latest") for one in ollama.models}
    assert ollama.models == {**before, "m:latest": digest}


def test_two_comparisons_at_once_have_a_base_each(server, ollama, made_run):
    def base():
        return temporarily_on_server("base", made_run.files, server, display=QUIET, why="")

    with base() as first:
        with base() as second:
            assert first != second
        assert server.digest(first) is not None


def test_imports_under_one_name_wait_for_each_other(server, ollama, made_run, tmp_path):
    other = MadeRun(tmp_path / "m" / "4567", "other weights")
    display, said = heard()
    proving, go_on = Event(), Event()
    proved = {}

    def first(candidate):
        proved["first"] = server.digest(candidate)
        proving.set()
        assert go_on.wait(60)

    def second(candidate):
        proved["second"] = server.digest(candidate)

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(import_run, made_run, "m", server, display=QUIET, examine=first)
        assert proving.wait(60)
        # Another of its names, through another address of the same server.
        there = OllamaServer(server.address.replace("127.0.0.1", "localhost"), "0.34.1")
        two = pool.submit(import_run, other, "M:latest", there, display=display, examine=second)
        while "waiting" not in said.getvalue():
            assert not two.done(), two.exception()
            time.sleep(0.01)
        assert "second" not in proved
        assert len(temporary(ollama)) == 1
        go_on.set()
        assert one.result(60).digest == proved["first"]
        assert two.result(60).digest == proved["second"] != proved["first"]
    assert "waiting for another command that imports M:latest" in said.getvalue()
    assert set(ollama.models.values()) >= {proved["second"]}
    assert temporary(ollama) == []


def test_another_name_is_not_waited_for(server, made_run):
    def examine(_candidate):
        import_run(made_run, "n", server, display=QUIET)

    assert import_run(made_run, "m", server, display=QUIET, examine=examine).new


@pytest.mark.parametrize("name", ["not a name", "a:b:c", "é", "m:" + "t" * 81, "m" * 81])
def test_a_name_that_no_server_takes_is_refused_before_anything_is_sent(
    server, made_run, name, ollama_server
):
    with pytest.raises(UserError, match="model name"):
        import_run(made_run, name, server, display=QUIET)
    assert ollama_server.asked == []


def test_a_server_that_dies_in_create_is_one_sentence_and_leaves_nothing(
    server, ollama, made_run, cache
):
    ollama.instead["create"] = DROP
    with pytest.raises(UserError, match=r"lost the connection .* while creating"):
        import_run(made_run, "m", server, display=QUIET)
    # It may have made the model behind our back: the next command looks again.
    (left,) = journal(cache)
    del ollama.instead["create"]
    ollama.make(left, "made after we were gone")
    display, said = heard()
    with OllamaHost(display).running():
        pass
    assert ollama.models == {}
    assert journal(cache) == []
    assert f"removed a temporary model that an earlier command left: {left}" in said.getvalue()


def test_an_upload_that_is_cut_off_leaves_nothing_at_all(server, ollama_server, made_run, cache):
    digest = made_run.files.blobs["gguf/model-f16.gguf"]
    ollama_server.cut[f"/api/blobs/{digest}"] = 3
    with pytest.raises(UserError, match="lost the connection"):
        import_run(made_run, "m", server, display=QUIET)
    assert journal(cache) == []


def test_an_alias_stays_the_model_that_it_was(server, ollama):
    ollama.make("m", "one")
    digest = server.digest("m")
    with temporary_alias(server, "m", digest, "evaluated") as alias:
        ollama.make("m", "another")
        assert server.digest(alias) == digest
    with (
        pytest.raises(UserError, match="became another model meanwhile"),
        temporary_alias(server, "m", digest, "evaluated"),
    ):
        raise AssertionError
    assert temporary(ollama) == []


# What a launcher does that is killed in the middle: its words are the address and the use.
_KILLED = """
import sys, time
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.temporary_models import temporary_name
server = OllamaServer(sys.argv[1], "0.34.1")
with temporary_name(server, sys.argv[2], "0" * 64) as name:
    server.copy("m", name)
    print(name, flush=True)
    time.sleep(600)
"""


def launcher(code, *words):
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_what_a_killed_launcher_left_is_removed_by_the_next_and_nothing_else(server, ollama, cache):
    ollama.make("m", "ours")
    ollama.make("affineur-candidate-000000000000-abcdef", "a stranger's, of such a name")
    before = dict(ollama.models)
    processes = [launcher(_KILLED, server.address, use) for use in ("candidate", "base", "f16")]
    names = [process.stdout.readline().strip() for process in processes]
    assert all(f"{name}:latest" in ollama.models for name in names)
    display, said = heard()
    with OllamaHost(display).running():
        # All of them live.
        assert len(ollama.models) == len(before) + 3
    assert said.getvalue() == ""
    for process in processes[:2]:
        process.kill()
        process.wait()
    with OllamaHost(display).running():
        assert ollama.models == {**before, f"{names[2]}:latest": before["m:latest"]}
    assert "removed 2 temporary models that an earlier command left" in said.getvalue()
    assert len(said.getvalue().splitlines()) == 1
    processes[2].terminate()
    processes[2].wait()
    with OllamaHost(display).running():
        assert ollama.models == before
    assert journal(cache) == []


def test_a_model_that_may_still_come_is_looked_for_until_the_next_day(server, ollama, cache):
    process = launcher(_KILLED, server.address, "candidate")
    ollama.make("m", "ours")
    name = process.stdout.readline().strip()
    process.kill()
    process.wait()
    # The server was still at it.
    kept = ollama.models.pop(f"{name}:latest")
    with OllamaHost(QUIET).running():
        assert journal(cache) == [name]
    ollama.models[f"{name}:latest"] = kept
    with OllamaHost(QUIET).running():
        assert f"{name}:latest" not in ollama.models
    assert journal(cache) == []
    with pytest.raises(UserError), temporary_name(server, "candidate", "0" * 64) as name:
        raise UserError.one("x", "y")
    (entry,) = cache.rglob(name)
    yesterday = time.time() - 25 * 3600
    os.utime(entry, (yesterday, yesterday))
    with OllamaHost(QUIET).running():
        assert journal(cache) == []


def test_another_servers_models_are_not_looked_for_here(server, ollama, serve, monkeypatch):
    ollama.make("m", "ours")
    process = launcher(_KILLED, server.address, "candidate")
    name = process.stdout.readline().strip()
    process.kill()
    process.wait()
    other = serve(ollama)
    monkeypatch.setenv("OLLAMA_HOST", other.address)
    with OllamaHost(QUIET).running():
        assert f"{name}:latest" in ollama.models


def add_many(folder, number):
    run = SimpleNamespace(folder=folder)
    for each in range(40):
        ImportRecords.of(run).add(f"{number}-{each}", "d")


def test_no_record_of_an_import_is_lost_to_another(tmp_path):
    folder = tmp_path / "m" / "0123"
    folder.mkdir(parents=True)
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        list(pool.map(add_many, [folder] * 4, range(4)))
    made = json.loads((tmp_path / "m" / "imports.json").read_text())
    assert len(made) == 160


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "\x00"])
def test_a_damaged_record_of_imports_is_a_sentence(server, made_run, text):
    ollama_digest = import_run(made_run, "m", server, display=QUIET).digest
    path = made_run.folder.parent / "imports.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"imports\.json: is damaged"):
        ImportRecords.of(made_run).model_digest(ollama_digest)


# An import whose server falls silent: its words are the address, the run's folder and the path.
_IMPORTS = """
import sys
from pathlib import Path
from launcher.display import Display
from launcher.error_messages import exit_on_error
from launcher.serving.model_import import import_run
from launcher.serving.ollama_server import OllamaServer
from tests.launcher.conftest import MadeRun
def exit_with(text, code):
    print(text, file=sys.stderr)
    return SystemExit(code)
with exit_on_error(exit_with):
    server = OllamaServer(sys.argv[1], "0.34.1")
    def examine(name):
        server.generate(model=name, prompt="p")
    import_run(
        MadeRun(Path(sys.argv[2])), "m", server, display=Display(quiet=True), examine=examine
    )
"""


@pytest.mark.parametrize("silent", ["blobs", "create", "generate", "copy"])
def test_one_ctrl_c_ends_an_import_whose_server_is_silent(
    ollama_server, ollama, tmp_path, silent, cache
):
    ollama.instead[silent] = SILENCE
    # From then on it says nothing to anybody: nor that a model is removed.
    ollama_server.reply = lambda asked: SILENCE if ollama_server.silent.is_set() else ollama(asked)
    process = subprocess.Popen(
        [sys.executable, "-c", _IMPORTS, ollama_server.address, str(tmp_path / "m" / "0123")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert ollama_server.silent.wait(60)
    process.send_signal(signal.SIGINT)
    # Far less than the half hour for which it would wait.
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    # What could not be removed is removed by the next command, once the server speaks again.
    ollama_server.reply = ollama
    ollama.instead.clear()
    with OllamaHost(QUIET).running():
        assert ollama.models == {}
