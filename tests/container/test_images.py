"""The images: what is in them, that they are made again to the byte, and what spoils a build."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract.errors import UserError
from launcher.runtime import images
from launcher.runtime.dependency_locks import python_version
from launcher.runtime.gpu_generations import GENERATIONS
from tests.conftest import fresh_copy, invoke
from tests.container.conftest import ENGINE, QUIET, probe

LOOK_INSIDE = """
import importlib.metadata as m, bitsandbytes, torch
recorded = [file for d in m.distributions() for file in d.files or []]
# get_arch_list() is empty in some versions where no card is there.
say(cuda=torch.version.cuda, kernels=torch._C._cuda_getArchFlags().split(),
    wheels=sum(file.size or 0 for file in recorded))
"""


# What the newest generation's profile is for besides its oldest cards.
NEWER_KERNELS = {"sm_86", "sm_90", "sm_100", "sm_120"}


@pytest.mark.parametrize("lock", GENERATIONS)
def test_an_image_brings_its_cuda_and_its_kernels_and_little_else(engine, run, lock):
    generation = GENERATIONS[lock]
    newest = max(GENERATIONS.values(), key=lambda other: other.cards_from)
    values, ending = probe(engine, run, LOOK_INSIDE, lock=lock)
    assert ending.code == 0, (run / "log").read_text()
    assert values["cuda"] == generation.cuda
    kernels = {
        f"sm_{major}{minor}" for major, minor in (generation.kernels_from, generation.cards_from)
    }
    assert kernels | (NEWER_KERNELS if generation is newest else set()) <= set(values["kernels"])
    # The base's layer is the first of the image's own.
    history = engine._client.images.get(images.tag(lock)).history()
    layers = [layer["Size"] for layer in history if layer["Size"]]
    assert sum(layers) <= 1.1 * (layers[-1] + values["wheels"])


def test_all_that_a_stage_imports_comes_as_bytecode_of_no_date(engine, run):
    code = (
        "import sys, bitsandbytes, peft, torch, transformers, trl, trainer.train.stage\n"
        "cached = {n: getattr(m, '__cached__', None) for n, m in list(sys.modules.items())}\n"
        "cached = {n: p for n, p in cached.items() if isinstance(p, str)}\n"
        "missing = [n for n, p in cached.items() if not os.path.exists(p)]\n"
        # Bit 0 of the flags: by the source's hash; bit 1, which is not set: to be compared.
        "flags = {open(p, 'rb').read(8)[4] for n, p in cached.items()"
        " if p.startswith('/opt/') and n not in missing}\n"
        "say(count=len(cached), missing=missing, flags=sorted(flags))"
    )
    values, ending = probe(engine, run, code)
    assert ending.code == 0, (run / "log").read_text()
    assert values["count"] > 1000
    assert values["missing"] == []
    assert values["flags"] == [1]


def test_an_image_of_another_contract_is_refused(engine, monkeypatch):
    # The real image, with another label on it.
    monkeypatch.setattr(
        images, "tag", lambda lock, tag=images.tag: tag(lock) if lock == "rtx" else "affineur/old:x"
    )
    engine.image("rtx", QUIET)
    container = engine._client.containers.create(images.tag("rtx"), ["true"])
    try:
        container.commit("affineur/old", "x", changes=f"LABEL {images.CONTRACT_LABEL}=0")
    finally:
        container.remove()
    monkeypatch.setattr(images, "source_digest", lambda lock: _label(engine, lock))
    try:
        with pytest.raises(
            UserError, match=r"uses contract version 0.*Run ./invoke build --profile t4"
        ):
            engine.image("t4", QUIET)
    finally:
        engine._client.images.remove("affineur/old:x")


def _label(engine, lock):
    return engine._client.images.get(images.tag(lock)).labels[images.SOURCE_LABEL]


def test_an_edit_of_the_trainer_moves_no_layer_of_dependencies(engine, tmp_path):
    engine.image("rtx", QUIET)
    before = engine._client.images.get(images.tag("rtx")).attrs["RootFS"]["Layers"]
    project = fresh_copy(tmp_path / "edited")
    with (project / "trainer" / "chat.py").open("a") as file:
        file.write("# A line more.\n")
    done = invoke(project, "build", "--profile", "smoke", **ENGINE)
    assert done.returncode == 0, done.stderr
    after = engine._client.images.get(images.tag("rtx")).attrs["RootFS"]["Layers"]
    # The base's and the packages' layers; behind them stand an empty folder and our sources.
    assert after[:2] == before[:2]
    assert after[-1] != before[-1]


def test_an_image_removed_by_hand_comes_back_the_same(engine):
    before = engine.image("rtx", QUIET).digest
    engine._client.images.remove(images.tag("rtx"), force=True)
    assert engine._find(images.tag("rtx")) is None
    record = engine.image("rtx", QUIET)
    assert record.digest == before
    assert "BuildKit" in record.builder


@pytest.fixture
def bare_base(engine):
    """The base without the standard library's bytecode, as python:slim comes."""
    text = (images.ROOT / "docker" / "trainer.Dockerfile").read_text()
    base = images.BuildInputs.given().base or re.search(r"^ARG BASE=(\S+)", text, re.M)[1]
    dockerfile = f"FROM {base}\nRUN find /usr -name '*.pyc' -delete\n".encode()
    tag = "affineur/bare:test"
    engine._client.images.build(fileobj=io.BytesIO(dockerfile), tag=tag, rm=True)
    yield tag
    engine._client.images.remove(tag, force=True)


def test_two_builds_from_nothing_have_one_digest_and_so_has_a_plain_one(small_project, bare_base):
    checked = invoke(small_project, "build", "--check", "--base-image", bare_base, **ENGINE)
    assert checked.returncode == 0, checked.stderr
    first, second, builder = checked.stdout.splitlines()
    assert first == second
    assert re.fullmatch(r"rtx  sha256:[0-9a-f]{64}", first)
    assert "BuildKit" in builder
    # Another clone, of another day: other dates on every file.
    other = small_project.parent / "another"
    shutil.copytree(small_project, other, copy_function=shutil.copy)
    plain = invoke(other, "build", "--base-image", bare_base, **ENGINE)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.split()[1] == first.split()[1]


def test_a_check_of_what_differs_says_so(small_project):
    dockerfile = small_project / "docker" / "trainer.Dockerfile"
    dockerfile.write_text(
        dockerfile.read_text() + "\nFROM trainer AS spoiled\nRUN date +%N >/now\n"
    )
    bake = small_project / "docker" / "docker-bake.hcl"
    bake.write_text(bake.read_text().replace('target     = "trainer"', 'target     = "spoiled"'))
    done = invoke(small_project, "build", "--check", **ENGINE)
    assert done.returncode == 1, done.stdout
    assert "the two builds differ" in done.stderr


def test_a_build_goes_through_a_cache_that_lies_in_a_folder(small_project, tmp_path, engine):
    kept = tmp_path / "kept layers"
    first = invoke(small_project, "build", "--cache", str(kept), **ENGINE)
    if engine.facts().keeps_layers_twice:
        assert first.returncode == 0, first.stderr
        assert (kept / "layers" / "index.json").exists()
        second = invoke(small_project, "build", "--cache", str(kept), **ENGINE)
        assert second.stdout == first.stdout
        assert (
            "importing cache manifest"
            in (small_project / "data/cache/logs/build-rtx.log").read_text()
        )
    else:
        # BuildKit writes such a cache from containerd's store alone.
        assert first.returncode == 2, first.stderr
        assert "image store" in first.stderr


def test_a_folder_of_wheels_stands_in_for_the_index(small_project, tmp_path):
    wheels = tmp_path / "des paquets"
    lock = small_project / "docker" / "locks" / "rtx.lock"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:"]
    subprocess.run([*command, "-r", str(lock), "-d", str(wheels)], check=True)
    built = invoke(small_project, "build", "--wheels", str(wheels), **ENGINE)
    assert built.returncode == 0, built.stderr
    # One that lacks is not fetched from elsewhere: what is closed stays closed.
    next(wheels.glob("ruff*")).unlink()
    lacking = invoke(small_project, "build", "--wheels", str(wheels), **ENGINE)
    assert lacking.returncode == 2
    assert "ruff" in lacking.stderr


def test_a_step_that_fails_shows_its_end_and_its_log(small_project):
    lock = small_project / "docker" / "locks" / "rtx.lock"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", lock.read_text()))
    done = invoke(small_project, "build", **ENGINE)
    assert done.returncode == 2, done.stderr
    assert "data/cache/logs/build-rtx.log: the image could not be built" in done.stderr
    assert "Hash mismatch" in done.stderr
    assert "Traceback" not in done.stderr
    assert 5 < len(done.stderr.splitlines()) < 30
    assert "Hash mismatch" in (small_project / "data/cache/logs/build-rtx.log").read_text()


def test_a_disk_without_room_is_said_before_the_build(engine, monkeypatch):
    monkeypatch.setattr(engine, "_find", lambda target: None)
    monkeypatch.setattr("shutil.disk_usage", lambda place: _Usage(free=3 * 10**9))
    with pytest.raises(UserError, match=r"has 3.0 GB free, but building an image takes up to \d+"):
        engine.build("rtx", images.BuildInputs(), QUIET)


class _Usage:
    def __init__(self, free):
        self.free = free


def test_a_machine_without_docker_commands_cannot_build_and_says_so(small_project, tmp_path):
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / f"python{python_version()}").symlink_to(Path(sys.executable).resolve())
    for name in ("sh", "dirname", "cmp", "cp", "rm"):
        (bare / name).symlink_to(shutil.which(name))
    done = invoke(small_project, "build", PATH=str(bare), **ENGINE)
    assert done.returncode == 2, done.stderr
    assert "the docker command was not found" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_devcontainers_image_runs_the_projects_commands_and_makes_nothing(engine, tmp_path):
    built = invoke(fresh_copy(tmp_path / "build"), "build", "--dev", **ENGINE)
    assert built.returncode == 0, built.stderr
    project = fresh_copy(tmp_path / "workspace")
    subprocess.run(["chmod", "-R", "a+rwX", str(project)], check=True)
    commands = (
        "git --version && ./invoke --list && ./invoke check"
        " && ./invoke test --only tests/contract && ./invoke plan --profile smoke"
    )
    said = engine._client.containers.run(
        images.tag(images.DEV),
        ["bash", "-c", commands],
        # No network: all that they need has come with the image.
        network_mode="none",
        volumes={str(project): {"bind": "/workspaces/affineur", "mode": "rw"}},
        working_dir="/workspaces/affineur",
        remove=True,
        stderr=True,
    ).decode()
    assert "Success: no issues found" in said
    assert re.search(r"\d+ passed", said)
    assert re.search(r"^prepare +to run$", said, re.M)
    assert not (project / ".venv").exists()
