"""Machines that have another Python than the standard image: Debian 13 brings 3.13 alone.

`.ci/engine debian13 DIR` makes an image of it.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from contract.digest import digest_of_file
from contract.manifest import Manifest
from launcher.runtime import images
from launcher.runtime.dependency_locks import uv
from tests.conftest import fresh_copy, invoke
from tests.container.conftest import ENGINE
from tests.container.test_whole_run import FILES

_CERTIFICATES = "/run/certificates.crt"


@pytest.fixture(scope="session")
def debian_13() -> str:
    image = os.environ.get("AFFINEUR_DEBIAN_13", "")
    assert image, 'no image of Debian 13: eval "$(.ci/engine debian13 DIR)", see CONTRIBUTING.md'
    return image


def python_of(engine, image):
    return engine._client.containers.run(image, ["python3", "--version"], remove=True).decode()


@pytest.fixture(scope="module")
def fresh_machine(engine, debian_13, smoke_run, tmp_path_factory):
    """README's first command there, in a clone of its own: the folder, and what was said.

    Of this machine it has the network, the packages that were fetched already, and the base,
    which other tests make.
    """
    project = fresh_copy(tmp_path_factory.mktemp("debian") / "clone d'été")
    bases = Path("data", "cache", "bases")
    shutil.copytree(smoke_run.project / bases, project / bases)
    packages = subprocess.check_output([uv(), "cache", "dir"], text=True).strip()
    volumes = {place: {"bind": place, "mode": "rw"} for place in (str(project), packages)}
    environment = {
        name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")
    }
    # The cache lies on another mount: packages cannot be hard links, and copies take 5 GB.
    environment |= {"UV_CACHE_DIR": packages, "UV_LINK_MODE": "symlink", "HOME": "/tmp"}
    certificates = os.environ.get("AFFINEUR_CA") or os.environ.get("SSL_CERT_FILE")
    if certificates:
        volumes[certificates] = {"bind": _CERTIFICATES, "mode": "ro"}
        environment |= {"SSL_CERT_FILE": _CERTIFICATES, "PIP_CERT": _CERTIFICATES}
    said = engine._client.containers.run(
        debian_13,
        ["./invoke", "train", "--profile", "smoke", "--engine", "local", "--ollama", "none"],
        network_mode="host",
        volumes=volumes,
        environment=environment,
        user=f"{os.getuid()}:{os.getgid()}",
        working_dir=str(project),
        remove=True,
        stderr=True,
    ).decode()
    (manifest,) = (project / "data" / "models" / "affineur-smoke").glob("*/manifest.json")
    return manifest.parent, said


def test_the_smoke_run_gives_the_same_bytes_as_on_this_machine(fresh_machine, smoke_run):
    folder, _ = fresh_machine
    assert folder.name == smoke_run.folder.name
    for name in FILES:
        assert digest_of_file(folder / name) == digest_of_file(smoke_run.folder / name), name


def test_it_ran_on_the_python_that_the_machine_has(engine, fresh_machine, debian_13):
    folder, said = fresh_machine
    assert "making .venv from docker/locks/host.lock with Python 3.13 (once)" in said
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    there = python_of(engine, debian_13)
    assert {f"Python {record.python}\n" for record in manifest.stages} == {there}


def test_an_image_is_built_on_a_base_that_has_another_python(engine, small_project, debian_13):
    built = invoke(small_project, "build", "--base-image", debian_13, **ENGINE)
    assert built.returncode == 0, built.stderr
    assert python_of(engine, images.tag("rtx")) == python_of(engine, debian_13)


def test_a_base_without_a_supported_python_is_refused(engine, small_project, debian_13):
    container = engine._client.containers.run(
        debian_13, ["sh", "-c", "rm /usr/bin/python3*"], detach=True
    )
    container.wait()
    container.commit("affineur/without-python", "x")
    container.remove()
    try:
        built = invoke(
            small_project, "build", "--base-image", "affineur/without-python:x", **ENGINE
        )
    finally:
        engine._client.images.remove("affineur/without-python:x")
    assert built.returncode == 2, built.stderr
    assert re.search(r"affineur: the base image has no Python 3\.11, 3\.12 or 3\.13$", built.stderr)
    assert "Traceback" not in built.stderr
