"""What a build of an image is told, and what becomes of the folder that keeps its layers.

`docker` is a program of this file's: it writes what BuildKit would. tests/container has a real one.
"""

import re

import pytest

from contract.errors import UserError
from launcher.display import Display
from launcher.runtime import images
from launcher.runtime.images import BuildInputs
from tests.conftest import invoke

QUIET = Display(quiet=True)
_DOCKER = """#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$@" >"$here/said"
case "$1 $2" in
"buildx version") echo "github.com/docker/buildx v0.20.0" ;;
"image inspect") cat "$here/id" 2>/dev/null ;;
"buildx bake")
    cp "$here/said" "$here/baked"
    for word in "$@"; do
        case $word in
        *cache-to=*) layers=${word#*dest=} layers=${layers%%,*} ;;
        */metadata.json) metadata=$word ;;
        esac
    done
    if [ -n "$layers" ]; then echo "$$" >"$layers/index.json"; fi
    if [ -f "$here/fails" ]; then sed "s#LAYERS#$layers#" "$here/fails"; exit 1; fi
    echo '{"trainer": {"containerimage.digest": "sha256:1"}}' >"$metadata" ;;
esac
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """The folder of a docker that builds nothing: its files say what was asked."""
    folder = tmp_path / "docker"
    folder.mkdir()
    (folder / "docker").write_text(_DOCKER)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(images, "CACHE", tmp_path / "cache")
    monkeypatch.delenv("AFFINEUR_BASE_IMAGE", raising=False)
    return folder


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def somebodys(tmp_path):
    """A folder with files that are not ours."""
    folder = tmp_path / "somebody's"
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "1.jpg").write_text("the only one")
    # As BuildKit's own caches have, and as the build's own new one was called.
    (folder / "index.json").write_text("{}")
    (folder.with_name("somebody's.new")).mkdir()
    (folder.with_name("somebody's.new") / "file").write_text("theirs")
    return folder


def test_a_folder_that_is_not_ours_is_refused_and_stays(docker, somebodys, tmp_path):
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"--cache: .*somebody's was not made by Affineur"):
        images.build("rtx", BuildInputs(cache=somebodys), QUIET)
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert not (docker / "baked").exists()


@pytest.mark.parametrize("words", [["build"], ["build", "--check"], ["build", "--dev"]])
def test_the_command_says_so_before_anything_else(plain_project, somebodys, words):
    before = contents(somebodys)
    done = invoke(plain_project, *words, "--cache", str(somebodys))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"affineur: --cache: {somebodys} was not made by Affineur, and what is in it would be "
        "removed. Give a folder of its own: one that is empty, or not there yet."
    )
    assert contents(somebodys) == before


@pytest.mark.parametrize("there", ["not there", "empty"])
def test_a_folder_of_our_own_holds_the_layers_of_the_last_build_alone(docker, tmp_path, there):
    cache = tmp_path / "parent" / "layers of ours"
    if there == "empty":
        cache.mkdir(parents=True)
    for build in range(3):
        if build == 1:
            (cache / "layers" / "unneeded").write_text("of the first build")
        images.build("rtx", BuildInputs.given(cache=str(cache)), QUIET)
        said = (docker / "baked").read_text()
        assert (f"*.cache-from=type=local,src={cache}/layers" in said) == (build > 0)
        assert sorted(contents(cache)) == [".affineur", ".layers/.lock", "layers/index.json"]


def test_a_build_that_fails_leaves_the_layers_that_were_there(docker, tmp_path):
    cache = tmp_path / "layers"
    images.build("rtx", BuildInputs(cache=cache), QUIET)
    before = contents(cache)
    (docker / "fails").write_text("#1 ERROR: no\n")
    with pytest.raises(UserError, match="could not be built"):
        images.build("rtx", BuildInputs(cache=cache), QUIET)
    assert contents(cache) == before


def test_a_full_disk_is_the_engines_or_the_caches(docker, tmp_path):
    cache = tmp_path / "layers"
    (docker / "fails").write_text("#9 ERROR: write LAYERS/ingest/1/data: no space left on device\n")
    with pytest.raises(UserError, match=rf"--cache {cache}: the disk of this folder is full"):
        images.build("rtx", BuildInputs(cache=cache), QUIET)
    (docker / "fails").write_text("#9 ERROR: write /var/lib/docker/1: no space left on device\n")
    with pytest.raises(UserError, match="the engine's disk is full"):
        images.build("rtx", BuildInputs(cache=cache), QUIET)


def label(docker, inputs):
    images.build("rtx", inputs, QUIET)
    (found,) = re.findall(r"trainer\.labels\.dev\.affineur\.source=(\w+)", _baked(docker))
    return found


def _baked(docker):
    # Both names are the same target's where no exporter is built.
    return "\n".join(dict.fromkeys((docker / "baked").read_text().splitlines()))


def test_another_base_is_another_image(docker, monkeypatch):
    (docker / "id").write_text("sha256:aaa\n")
    plain = label(docker, BuildInputs())
    assert plain == images.source_digest("rtx")
    own = label(docker, BuildInputs(base="own/python:3"))
    assert own != plain
    # Of the same name, and another one.
    (docker / "id").write_text("sha256:bbb\n")
    newer = label(docker, BuildInputs(base="own/python:3"))
    assert newer != own
    (docker / "id").unlink()
    assert label(docker, BuildInputs(base="other/python:3")) not in (plain, own, newer)
    # What a run compares with, and its exporter.
    exporter = images.source_digest("rtx-exporter")
    monkeypatch.setenv("AFFINEUR_BASE_IMAGE", "other/python:3")
    assert images.source_digest("rtx") == label(docker, BuildInputs.given())
    assert images.source_digest("rtx-exporter") != exporter


def test_a_base_by_digest_is_that_whatever_the_engine_has(docker):
    pinned = BuildInputs(base=f"own/python@sha256:{'0' * 64}")
    first = label(docker, pinned)
    (docker / "id").write_text("sha256:ccc\n")
    assert label(docker, pinned) == first
