"""CI's scripts remove what they made and nothing else, and build what they know the hash of."""

import os
import subprocess

import pytest

from launcher.project import ROOT
from launcher.runtime.owned_folder import OWNER_FILE


def run(script, *words, **more):
    return subprocess.run(
        [str(ROOT / ".ci" / script), *words],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def somebodys(tmp_path):
    folder = tmp_path / "somebody's"
    folder.mkdir()
    (folder / "notes").write_text("the only ones")
    return folder


@pytest.mark.parametrize("action", ["start", "stop"])
def test_an_engine_takes_no_folder_that_is_not_its_own(somebodys, action):
    done = run("engine", action, str(somebodys))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"engine: {somebodys} was not made by .ci/engine")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in somebodys.iterdir()] == ["notes"]


def test_an_engine_is_not_stopped_by_a_process_number_in_somebodys_folder(somebodys):
    with subprocess.Popen(["sleep", "600"]) as bystander:
        (somebodys / "dockerd.pid").write_text(str(bystander.pid))
        assert run("engine", "stop", str(somebodys)).returncode == 2
        assert bystander.poll() is None
        bystander.kill()


def test_stopping_removes_the_engines_own_folder_and_may_be_done_twice(tmp_path):
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / OWNER_FILE).touch()
    (folder / "dockerd.log").write_text("...")
    for _ in range(2):
        done = run("engine", "stop", str(folder))
        assert done.returncode == 0, done.stderr
        assert not folder.exists()


_GO = """#!/bin/sh
echo "$@" >>"{said}"
printf '{{\\n\\t"Dir": "/",\\n\\t"Sum": "h1:of another one="\\n}}\\n'
"""


def test_an_ollama_of_another_hash_is_not_built(tmp_path):
    """`go` is a program of this test's: its module proxy has other sources under the version."""
    said = tmp_path / "said"
    (tmp_path / "go").write_text(_GO.format(said=said))
    (tmp_path / "go").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run("ollama", "0.6.5", str(tmp_path / "out"), PATH=path)
    assert done.returncode == 2
    assert "version 0.6.5 has the hash h1:of another one=, and .ci/ollama says h1:" in done.stderr
    assert said.read_text() == "mod download -json github.com/ollama/ollama@v0.6.5\n"
    unknown = run("ollama", "0.6.6", str(tmp_path / "out"), PATH=path)
    assert unknown.returncode == 2
    assert "the hash of version 0.6.6 is not known" in unknown.stderr
