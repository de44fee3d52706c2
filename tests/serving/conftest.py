"""Real Ollama servers, each with a store of its own, on a free port.

Everything in this folder fails without one; see CONTRIBUTING.md. Run by `./invoke test --serving`.
`AFFINEUR_OLLAMA` names the programs, with ':' between them; without it `ollama` is looked for.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from docker import DockerClient
from docker.errors import NotFound

from contract.digest import digest_of_file
from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.serving import ollama_container as beside
from launcher.serving import ollama_server as serving
from launcher.serving.model_import import import_run
from tests.conftest import clone_with_run, invoke, lend_tools, needs

NAME = "affineur-smoke"


def programs() -> list[str]:
    given = os.environ.get("AFFINEUR_OLLAMA", "")
    return [path for path in given.split(":") if path] or [shutil.which("ollama") or "ollama"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# Bind-mounts the file $0 over what a server counts its cores by, and becomes the server.
_WITH_ONE_CORE = 'mount --bind "$0" /proc/cpuinfo && exec "$@"'


def one_core() -> str:
    """What /proc/cpuinfo says on a machine with one core of this one's kind."""
    return Path("/proc/cpuinfo").read_text().partition("\n\n")[0] + "\n\n"


class Ollama:
    """A server process that can be killed and started again on the same store.

    It believes that this machine has one core. The threads of llama.cpp wait for each other by
    spinning, so that two of them beside anything else on two cores take 80 times as long as one:
    213 s for one verification in place of 2.7 s, measured with 0.6.5.
    """

    def __init__(self, program: str, home: Path) -> None:
        self.program, self.home = program, home
        self.host = f"127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.home),
            "OLLAMA_HOST": self.host,
            # For newer ones, whose llama-server counts by itself.
            "LLAMA_ARG_THREADS": "1",
        }

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        cores = self.home / "cpuinfo"
        cores.write_text(one_core())
        apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _WITH_ONE_CORE]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*apart, str(cores), self.program, "serve"],
                env=self.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.home / "log").read_text()[-2000:]
            try:
                with socket.create_connection(("127.0.0.1", int(self.host.split(":")[1])), 1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server did not come up")

    def kill(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def halt(self) -> None:
        """The server hears nothing any more, and is not dead yet."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def run(self, *words: str, **more) -> subprocess.CompletedProcess[str]:
        """`ollama words...`, the command line that people use."""
        # A terminal, as people have: what else comes in is put before the prompt, with a space.
        ours, theirs = os.openpty()
        try:
            return subprocess.run(
                [self.program, *words],
                env=self.environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
                stdin=theirs,
                **more,
            )
        finally:
            os.close(ours)
            os.close(theirs)


@pytest.fixture(scope="session", params=programs(), ids=lambda path: path.split("/")[-3:][0])
def ollama(request, tmp_path_factory):
    """One server of each program, shared by tests that leave it running."""
    server = Ollama(request.param, tmp_path_factory.mktemp("ollama") / "home")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def connected(ollama, monkeypatch):
    """Our client, at that server."""
    monkeypatch.setenv("OLLAMA_HOST", ollama.host)
    return serving.OllamaServer.found()


@pytest.fixture
def project(smoke_run, tmp_path):
    """A clone with the smoke run's environment, cache and finished run."""
    return clone_with_run(smoke_run.project, tmp_path / "clone é")


@pytest.fixture(scope="session")
def quantized(smoke_run, tools, tmp_path_factory):
    """A clone in which the same run serves a q4_k_m file; not to be changed."""
    clone = clone_with_run(smoke_run.project, tmp_path_factory.mktemp("quantized") / "clone")
    lend_tools(clone, tools)
    return train_again(clone, "quantizations=[q4_k_m]")


@pytest.fixture(scope="session")
def retold(smoke_run, tmp_path_factory):
    """A clone in which the same run's answers are bounded otherwise; not to be changed."""
    clone = clone_with_run(smoke_run.project, tmp_path_factory.mktemp("retold") / "clone")
    return train_again(clone, RETOLD)


@pytest.fixture(scope="session")
def cut_short(smoke_run, tmp_path_factory):
    """A clone in which the same run's answers run into their bound; not to be changed."""
    clone = clone_with_run(smoke_run.project, tmp_path_factory.mktemp("short") / "clone")
    return train_again(clone, CUT_SHORT)


RETOLD, CUT_SHORT = "num_predict=99", "num_predict=3"


def train_again(clone: Path, setting: str) -> Path:
    words = ("--profile", "smoke", "--engine", "local", "--ollama", "none", "--set", setting)
    done = invoke(clone, "train", *words)
    assert done.returncode == 0, done.stderr
    return clone


def take_run(project: Path, other: Path) -> Path:
    """Put another clone's run in the place of this one's, as if it had been made here."""
    run = the_run(project)
    shutil.rmtree(run)
    return Path(shutil.copytree(the_run(other), run))


class Sibling:
    """What a machine has of the container `affineur-ollama`, and how it is asked for."""

    def __init__(self, client: DockerClient, image: str) -> None:
        self.client, self.image = client, image
        self.host = f"127.0.0.1:{free_port()}"

    def environment(self) -> dict[str, str]:
        return {
            "DOCKER_HOST": os.environ.get("DOCKER_HOST", ""),
            "OLLAMA_HOST": self.host,
            "AFFINEUR_OLLAMA_IMAGE": self.image,
        }

    def container(self):
        with suppress(NotFound):
            return self.client.containers.get(beside.NAME)
        return None

    def status(self) -> str:
        standing = self.container()
        return "absent" if standing is None else standing.status

    def build(self, *lines: str, folder: Path | None = None) -> str:
        """A small image on the base that the project's own images have in tests."""
        base = os.environ.get("AFFINEUR_BASE_IMAGE") or "python:3.11-bookworm"
        dockerfile = "\n".join([f"FROM {base}", *lines]).encode()
        if folder is None:
            built, _ = self.client.images.build(fileobj=io.BytesIO(dockerfile), rm=True)
        else:
            (folder / "Dockerfile").write_bytes(dockerfile)
            built, _ = self.client.images.build(path=str(folder), rm=True)
        name = f"affineur/test-ollama:{str(built.id).rpartition(':')[2][:12]}"
        built.tag(*name.split(":"))
        return name


@pytest.fixture(scope="session")
@needs("container")
def engine_client():
    client = DockerClient.from_env(timeout=300)
    yield client
    for image in client.images.list("affineur/test-ollama"):
        client.images.remove(image.id, force=True)


@pytest.fixture(scope="session")
def ollama_image(request, engine_client, tmp_path_factory):
    """An image like `ollama/ollama`, of the last program where a test names none."""
    program = Path(getattr(request, "param", programs()[-1])).resolve()
    folder = tmp_path_factory.mktemp("image")
    # It counts cores in a file of the image's own: see `Ollama`. The names are of one length.
    known = program.read_bytes().replace(b"/proc/cpuinfo", b"/etc/one-core")
    (folder / "ollama").write_bytes(known)
    (folder / "ollama").chmod(0o755)
    (folder / "one-core").write_text(one_core())
    copied = ["COPY ollama /bin/ollama", "COPY one-core /etc/one-core", "ENV LLAMA_ARG_THREADS=1"]
    # Newer ones have what loads a model beside them.
    if (beside_it := program.parent.parent / "lib" / "ollama").is_dir():
        shutil.copytree(beside_it, folder / "lib")
        copied.append("COPY lib /lib/ollama")
    return Sibling(engine_client, "").build(
        *copied,
        "ENV OLLAMA_HOST=0.0.0.0:11434",
        "EXPOSE 11434",
        'ENTRYPOINT ["/bin/ollama"]',
        'CMD ["serve"]',
        folder=folder,
    )


@pytest.fixture
def sibling(engine_client, ollama_image, monkeypatch):
    """A machine without the container, for this process and for `invoke`; without it afterwards."""
    made = Sibling(engine_client, ollama_image)
    volumes = {volume.name for volume in engine_client.volumes.list()}
    # Somebody's models may be in it.
    assert made.status() == "absent", f"there is a container {beside.NAME}; it is not touched"
    assert beside.NAME not in volumes, f"there is a volume {beside.NAME}; it is not touched"
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    yield made
    with suppress(NotFound):
        engine_client.containers.get(beside.NAME).remove(force=True)
    with suppress(NotFound):
        engine_client.volumes.get(beside.NAME).remove()


def as_if_made(run, file):
    """The run's manifest, with the file as it is now."""
    found = Run(run)
    for record in found.manifest.stages:
        if file.as_posix() in record.outputs:
            record.outputs[file.as_posix()] = digest_of_file(run / file)
    found.write_manifest(found.manifest)


def the_run(project, model=NAME):
    (run,) = (project / "data" / "models" / model).glob("*/")
    return run


def put(project, server, model=NAME):
    """Bring the run's model there without its proof, where the proof is not what is tested."""
    run = the_run(project, model)
    import_run(Run(run), model, server, display=Display(quiet=True))
    return run


def temporary(server):
    """The names on a server that are ours only while a command needs them."""
    ours = re.compile(r"affineur-[a-z0-9]+-[0-9a-f]{12}-[0-9a-f]{6}(:latest)?")
    return [name for name in server.models() if ours.fullmatch(name)]


def import_smoke(project, ollama, *words):
    return invoke(project, "import", "--model", NAME, *words, OLLAMA_HOST=ollama.host)


@pytest.fixture(scope="session")
def with_tools(smoke_run, tools, tmp_path_factory):
    """A clone with the smoke run and llama.cpp's tools; models are made in it for all servers."""
    clone = clone_with_run(smoke_run.project, tmp_path_factory.mktemp("outils") / "clone é")
    lend_tools(clone, tools)
    return clone
