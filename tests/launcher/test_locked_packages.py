"""A package's archive comes by its hash, and not a line of it or of what would build it runs.

The index is a real one, on this machine: an HTTP server with a source package that says so when it
is built.
"""

import hashlib
import io
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from contract.child_environment import Purpose, child_environment
from contract.errors import UserError
from launcher.runtime import dependency_locks, environment, locked_packages
from launcher.runtime.locked_packages import download

_NAME, _VERSION = "llama-cpp-python", "0.0.1"
# What is imported to build it, out of the archive and out of the index, and what it leaves.
_TRACE = "import os, pathlib\npathlib.Path({place!r}).write_text(str(os.environ))\n"
_PROJECT = """\
[build-system]
requires = ["of-the-index"]
build-backend = "scikit_build_core.build"
[project]
name = "llama-cpp-python"
version = "0.0.1"
dynamic = ["dependencies"]
"""

_OF_THE_INDEX = """\
[build-system]
requires = []
build-backend = "own"
backend-path = ["."]
"""


def archive(name, files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for file, text in files.items():
            member = tarfile.TarInfo(f"{name}/{file}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index with the package and with what it says that it is built with; and its lock."""
    trace = tmp_path / "was run"
    runs = _TRACE.format(place=str(trace))
    packages = {
        _NAME: ("llama_cpp_python-0.0.1", {"pyproject.toml": _PROJECT, "setup.py": runs}),
        # It brings what builds it, so that nothing keeps it from running.
        "of-the-index": ("of_the_index-1", {"pyproject.toml": _OF_THE_INDEX, "own.py": runs}),
    }
    folder = tmp_path / "index"
    for package, (name, files) in packages.items():
        content = archive(name, files)
        (folder / package).mkdir(parents=True)
        (folder / package / f"{name}.tar.gz").write_bytes(content)
        (folder / package / "index.html").write_text(f'<a href="{name}.tar.gz">{name}.tar.gz</a>')
    content = (folder / _NAME / "llama_cpp_python-0.0.1.tar.gz").read_bytes()
    locks = tmp_path / "locks"
    locks.mkdir()
    sha256 = hashlib.sha256(content).hexdigest()
    (locks / "llama-cpp.lock").write_text(f"{_NAME}=={_VERSION} --hash=sha256:{sha256}\n")
    for module in (locked_packages, dependency_locks, environment):
        monkeypatch.setattr(module, "lock_file", lambda name: locks / f"{name}.lock")
    for module in (locked_packages, environment):
        monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setenv("PIP_INDEX_URL", address)
    monkeypatch.setenv("UV_INDEX_URL", address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield locks / "llama-cpp.lock", content, trace
    server.shutdown()
    server.server_close()


def test_a_source_package_is_fetched_and_nothing_is_built(index, tmp_path):
    _, content, trace = index
    (tmp_path / "got").mkdir()
    download("llama-cpp", tmp_path / "got", wheel=False, what="it")
    (got,) = (tmp_path / "got").iterdir()
    assert got.read_bytes() == content
    assert not trace.exists(), trace.read_text()


def test_another_archive_is_refused(index, tmp_path):
    lock, _, trace = index
    lock.write_text(f"{_NAME}=={_VERSION} --hash=sha256:{'0' * 64}\n")
    with pytest.raises(UserError, match=r"it could not be downloaded: .*DO NOT MATCH THE HASHES"):
        download("llama-cpp", tmp_path / "got", wheel=False, what="it")
    assert not trace.exists()
    assert not list((tmp_path / "got").iterdir())


def test_an_environment_takes_no_source_package(index, monkeypatch):
    _, _, trace = index
    monkeypatch.setattr(environment, "check_space", lambda folder: None)
    with pytest.raises(UserError, match="could not create the environment"):
        environment.ensure_environment("own", ["llama-cpp"], environment.Display(quiet=True))
    said = (environment.CACHE / "logs").rglob("*.log")
    assert "building from source is disabled" in "".join(log.read_text() for log in said)
    assert not trace.exists(), trace.read_text()


def test_what_installs_knows_its_own_settings_and_no_secret(monkeypatch):
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "VIRTUAL_ENV", "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
    for name in ("PIP_CERT", "UV_INDEX_URL", "https_proxy", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "y")
    known = child_environment(Purpose.PACKAGES)
    assert "x" not in known.values()
    assert list(known.values()).count("y") == 4


@pytest.mark.parametrize(
    ("refused", "remedy"),
    [
        ("cp /proc/version /dev/full", "Free some space on that disk"),
        ("cat /nothing/there", "Check the network"),
    ],
)
def test_a_disk_that_fills_is_not_taken_for_the_network(
    index, tmp_path, monkeypatch, refused, remedy
):
    program = tmp_path / "uv"
    program.write_text(f"#!/bin/sh\n{refused}\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setattr(environment, "uv", lambda: str(program))
    monkeypatch.setattr(environment, "check_space", lambda folder: None)
    with pytest.raises(UserError) as raised:
        environment.ensure_environment("own", ["llama-cpp"], environment.Display(quiet=True))
    assert remedy in str(raised.value)
