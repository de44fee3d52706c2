"""What is pushed to a real registry is pulled from it, and Ollama makes the model of it.

`AFFINEUR_REGISTRY` names the registry's program (`.ci/registry` builds it); without it `registry`
is looked for.
"""

import os
import shutil
import socket
import subprocess
import time

import pytest
import requests

from contract.digest import digest_of_file
from launcher.pipeline.finished_run import Run
from launcher.pipeline.package import packaged_files
from tests.conftest import invoke
from tests.serving.conftest import free_port

CONFIG = """version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


@pytest.fixture
def registry(tmp_path):
    """A registry of its own; its host."""
    program = os.environ.get("AFFINEUR_REGISTRY") or shutil.which("registry") or "registry"
    port = free_port()
    config = tmp_path / "registry.yaml"
    config.write_text(CONFIG.format(folder=tmp_path / "registry", port=port))
    with (tmp_path / "registry.log").open("wb") as log:
        server = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + 60
        while True:
            assert server.poll() is None, (tmp_path / "registry.log").read_text()
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def test_what_is_pushed_is_pulled_and_is_the_model(smoke_run, registry, ollama, tmp_path):
    from oras.client import OrasClient

    place = f"{registry}/me/smoke:1.0"
    done = invoke(smoke_run.project, "package", "--model", "affineur-smoke", "--push", place)
    assert done.returncode == 0, done.stderr
    reference, _, digest = done.stdout.strip().partition("@")
    assert reference == place
    # The registry's own word of what it has.
    kind = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    answer = requests.get(f"http://{registry}/v2/me/smoke/manifests/1.0", headers=kind, timeout=30)
    assert answer.headers["Docker-Content-Digest"] == digest

    folder = tmp_path / "pulled"
    OrasClient(insecure=True).pull(target=place, outdir=str(folder))
    run = Run(smoke_run.folder)
    for name in packaged_files(run):
        assert digest_of_file(folder / name) == digest_of_file(run.folder / name), name
    created = ollama.run("create", "pulled", "-f", "Modelfile", cwd=folder)
    assert created.returncode == 0, created.stderr
    blobs = {path.name for path in (ollama.home / ".ollama/models/blobs").iterdir()}
    assert f"sha256-{digest_of_file(folder / run.serving.gguf)}" in blobs
    # Pushed once more, it is the same.
    again = invoke(smoke_run.project, "package", "--model", "affineur-smoke", "--push", place)
    assert again.stdout == done.stdout
