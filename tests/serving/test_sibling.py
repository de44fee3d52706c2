"""The sibling container: there while it is needed, and nobody's container or port is touched.

Needs a Docker engine beside the Ollama program.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from contract import paths
from contract.errors import UserError
from contract.reference import Reference
from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.project import ROOT
from launcher.runtime.docker_engine import DockerEngine
from launcher.serving import ollama_container as beside
from launcher.serving.model_import import import_run
from launcher.serving.ollama_container import NAME as CONTAINER
from launcher.serving.ollama_container import OllamaContainer
from launcher.serving.server_choice import choose_server
from launcher.serving.verification import prove
from tests.conftest import NO_ENGINE, invoke, start
from tests.serving.conftest import NAME, free_port, programs, the_run

QUIET = Display(quiet=True)
IN_CONTAINER = ("--ollama", "container")
of_each_program = pytest.mark.parametrize(
    "ollama_image", programs(), ids=lambda path: path.split("/")[-3:][0], indirect=True
)


def import_into(project, sibling, **more):
    words = ("import", "--model", NAME, *IN_CONTAINER)
    return invoke(project, *words, **{**sibling.environment(), **more})


def train_into(project, sibling):
    """Of a finished run: the import alone is left to do."""
    return start(project, "--engine", "local", *IN_CONTAINER, **sibling.environment())


def wait_until_it_runs(sibling, process):
    deadline = time.monotonic() + 120
    while sibling.status() != "running":
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(sibling, prompt):
    """`docker exec -it affineur-ollama ollama run NAME PROMPT`, without what it paints."""
    asked = sibling.container().exec_run(["ollama", "run", NAME, prompt], tty=True)
    assert asked.exit_code == 0, asked.output
    painted = asked.output.decode().replace("\r", "")
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\].*?\x1b\\|[⠀-⣿]", "", painted).strip()


@of_each_program
def test_an_import_ends_in_a_model_that_answers_once_the_container_is_started(sibling, project):
    done = import_into(project, sibling)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{NAME}  ")
    assert done.stderr.count("✓") >= 4
    assert f"Serve it:  docker start {CONTAINER}" in done.stderr
    assert f"Ask it:  docker exec -it {CONTAINER} ollama run {NAME}" in done.stderr
    assert f"Applications can reach it at http://{sibling.host}." in done.stderr
    assert sibling.status() == "exited"
    (run,) = (project / "data" / "models" / NAME).glob("*/")
    sibling.container().start()
    # Found as an application finds it.
    with OllamaContainer(QUIET).running() as server:
        assert server.digest(NAME) == done.stdout.split()[1]
    for question in [q for q in Reference.read(run / paths.REFERENCE).questions if q.held_out][:3]:
        assert ask(sibling, question.messages[-1]["content"]) == question.answer.strip()


@of_each_program
def test_verify_is_green_through_it_and_stops_what_it_started(sibling, project):
    assert import_into(project, sibling).returncode == 0
    words = ("verify", "--model", NAME, *IN_CONTAINER)
    done = invoke(project, *words, **sibling.environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("✓") == 6
    assert "✗" not in done.stdout
    assert f"stopped the container {CONTAINER}" in done.stderr
    assert sibling.status() == "exited"


def test_train_ends_with_the_way_to_serve_the_model(sibling, project):
    words = ("train", "--profile", "smoke", "--engine", "local", *IN_CONTAINER)
    done = invoke(project, *words, **sibling.environment())
    assert done.returncode == 0, done.stderr
    assert f"{NAME} is in Ollama's container {CONTAINER}, as " in done.stdout
    assert f"docker start {CONTAINER}" in done.stdout
    assert f"docker exec -it {CONTAINER} ollama run {NAME}" in done.stdout
    assert sibling.status() == "exited"


def test_one_that_runs_is_used_and_left_running(sibling, project):
    with OllamaContainer(QUIET).running():
        pass
    sibling.container().start()
    began = sibling.container().attrs["State"]["StartedAt"]
    done = import_into(project, sibling)
    assert done.returncode == 0, done.stderr
    assert "is already running and will be left running" in done.stderr
    assert "docker start" not in done.stderr
    assert f"docker exec -it {CONTAINER} ollama run {NAME}" in done.stderr
    assert sibling.status() == "running"
    assert sibling.container().attrs["State"]["StartedAt"] == began


def test_one_that_a_killed_launcher_left_running_is_used_and_stopped(sibling, capfd):
    code = (
        "import time\n"
        "from launcher.display import Display\n"
        "from launcher.serving.ollama_container import OllamaContainer\n"
        "with OllamaContainer(Display(quiet=True)).running():\n"
        "    print('runs', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout.readline() == "runs\n"
        # Its launcher lives.
        with OllamaContainer(QUIET).running():
            pass
        assert sibling.status() == "running"
        launcher.kill()
    with OllamaContainer(Display()).running():
        pass
    assert f"{CONTAINER} was left running by a killed launcher" in capfd.readouterr().err
    assert sibling.status() == "exited"
    # A person's own start is another one.
    sibling.container().start()
    with OllamaContainer(QUIET).running():
        pass
    assert sibling.status() == "running"


def test_it_is_stopped_after_an_error_too(sibling, project):
    words = ("verify", "--model", NAME, *IN_CONTAINER)
    done = invoke(project, *words, **sibling.environment())
    assert done.returncode == 2
    assert f"./invoke import --model {NAME} --ollama container" in done.stderr
    assert sibling.status() == "exited"


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_it_is_stopped_when_the_launcher_is_asked_to_stop(sibling, project, asked):
    process = train_into(project, sibling)
    wait_until_it_runs(sibling, process)
    os.killpg(process.pid, asked)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert sibling.status() == "exited"


def test_a_launcher_killed_in_the_middle_leaves_one_that_the_next_uses(sibling, project):
    process = train_into(project, sibling)
    wait_until_it_runs(sibling, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert sibling.status() == "running"
    done = import_into(project, sibling)
    assert done.returncode == 0, done.stderr
    # Killed before it could say that this start was its own, it is taken for a person's.
    if "is already running and will be left running" in done.stderr:
        assert sibling.status() == "running"
    else:
        assert f"{CONTAINER} was left running by a killed launcher" in done.stderr
        assert sibling.status() == "exited"
        sibling.container().start()
        while sibling.container().exec_run(["ollama", "list"]).exit_code:
            time.sleep(0.1)
    (run,) = (project / "data" / "models" / NAME).glob("*/")
    question = next(q for q in Reference.read(run / paths.REFERENCE).questions if q.held_out)
    assert ask(sibling, question.messages[-1]["content"]) == question.answer.strip()


def test_no_engine_is_a_sentence(sibling, project):
    done = import_into(project, sibling, **NO_ENGINE)
    assert done.returncode == 2
    assert "--ollama container: no engine responds at unix:///no/engine.sock" in done.stderr
    assert "--ollama host" in done.stderr
    assert "Traceback" not in done.stderr


def test_train_looks_at_it_before_anything_runs(sibling, project):
    with socket.create_server(("127.0.0.1", int(sibling.host.split(":")[1]))):
        words = ("train", "--profile", "smoke", "--engine", "local", *IN_CONTAINER)
        done = invoke(project, *words, **sibling.environment())
    assert done.returncode == 2
    assert "is in use" in done.stderr
    assert "prepare" not in done.stderr


def test_a_port_in_use_is_a_sentence(sibling):
    port = int(sibling.host.split(":")[1])
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(UserError, match=f"port {port} is in use.*OLLAMA_HOST=127.0.0.1:PORT"),
    ):
        OllamaContainer(QUIET)
    assert sibling.status() == "absent"


def test_a_port_taken_meanwhile_is_a_sentence(sibling):
    waiting = OllamaContainer(QUIET)
    container = waiting._made(None)
    port = int(sibling.host.split(":")[1])
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(UserError, match=f"port {port} is in use"),
    ):
        waiting._start(container)


def test_an_ollama_server_at_the_port_is_offered(sibling, ollama, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", ollama.host)
    with pytest.raises(
        UserError, match=r"an Ollama server \(.*\) is already running at .*--ollama host"
    ):
        OllamaContainer(QUIET)
    assert sibling.status() == "absent"


def test_a_strangers_container_of_the_name_is_left_alone(sibling):
    stranger = sibling.client.containers.create(sibling.image, name=CONTAINER)
    with pytest.raises(UserError, match="was not created by this project"):
        OllamaContainer(QUIET)
    assert sibling.container().id == stranger.id


def test_an_image_that_cannot_be_had_is_a_sentence(sibling, monkeypatch):
    for name in ("localhost:9/nobody/ollama:0", "Not An Image"):
        monkeypatch.setenv("AFFINEUR_OLLAMA_IMAGE", name)
        with pytest.raises(
            UserError, match=rf"the image {name} could not be pulled: .*--ollama host"
        ):
            OllamaContainer(QUIET)


def test_a_server_that_ends_at_once_is_a_sentence_with_its_last_words(sibling, monkeypatch):
    image = sibling.build('ENTRYPOINT ["sh", "-c", "echo a library is missing >&2; exit 3"]')
    monkeypatch.setenv("AFFINEUR_OLLAMA_IMAGE", image)
    with (
        pytest.raises(UserError, match=r"exited unexpectedly \(exit code 3\)") as ended,
        OllamaContainer(QUIET).running(),
    ):
        pass
    assert "a library is missing" in str(ended.value)
    # Another image takes its place.
    monkeypatch.setenv("AFFINEUR_OLLAMA_IMAGE", sibling.image)
    with OllamaContainer(QUIET).running() as server:
        assert server.version


def test_a_server_that_stays_silent_is_a_sentence_and_is_stopped(sibling, monkeypatch):
    sleeping = "trap 'exit 0' TERM; echo waiting; while :; do sleep 0.1; done"
    image = sibling.build(f'ENTRYPOINT ["sh", "-c", "{sleeping}"]')
    monkeypatch.setenv("AFFINEUR_OLLAMA_IMAGE", image)
    monkeypatch.setattr(beside, "_PATIENCE_S", 2)
    with (
        pytest.raises(UserError, match="did not respond at") as silent,
        OllamaContainer(QUIET).running(),
    ):
        pass
    assert "waiting" in str(silent.value)
    assert sibling.status() == "exited"


def test_another_port_makes_it_anew_and_keeps_the_models(sibling, project, monkeypatch):
    assert import_into(project, sibling).returncode == 0
    first = sibling.container().id
    with OllamaContainer(QUIET).running() as server:
        assert sibling.container().id == first
        kept = server.digest(NAME)
    port = free_port()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{port}")
    with OllamaContainer(QUIET).running() as server:
        assert sibling.container().id != first
        assert server.address == f"http://127.0.0.1:{port}"
        assert server.digest(NAME) == kept is not None


def moved_tag(sibling):
    """A tag of the sibling's image, and what gives it to another image."""
    name = "affineur/test-ollama:moves"
    first = sibling.client.images.get(sibling.image)
    first.tag(*name.split(":"))
    other = sibling.client.images.get(sibling.build(f"FROM {sibling.image}", "LABEL other=1"))
    assert other.id != first.id
    return name, first, lambda: other.tag(*name.split(":"))


def test_it_is_made_from_the_image_that_was_found_first_and_the_proof_names_it(
    sibling, project, monkeypatch
):
    name, first, move = moved_tag(sibling)
    monkeypatch.setenv("AFFINEUR_OLLAMA_IMAGE", name)
    waiting = OllamaContainer(QUIET)
    move()
    with waiting.running() as server:
        assert server.image == first.id
        assert sibling.container().attrs["Config"]["Image"] == first.id
        run = Run(the_run(project))
        import_run(
            run,
            NAME,
            server,
            display=QUIET,
            examine=lambda candidate: prove(run, server, candidate, display=QUIET),
        )
    proof = Run(the_run(project)).manifest.verification
    assert (proof.image, proof.address) == (first.id, f"http://{sibling.host}")


def test_a_tag_that_names_another_image_makes_it_anew_once_it_is_stopped(sibling, monkeypatch):
    name, first, move = moved_tag(sibling)
    monkeypatch.setenv("AFFINEUR_OLLAMA_IMAGE", name)
    with OllamaContainer(QUIET).running():
        made = sibling.container().id
        move()
        with pytest.raises(UserError, match=f"docker stop {CONTAINER}"):
            OllamaContainer(QUIET)
    with OllamaContainer(QUIET).running() as server:
        assert server.image != first.id
        assert sibling.container().id != made


def test_one_that_runs_as_something_else_is_left_alone(sibling, monkeypatch):
    with OllamaContainer(QUIET).running():
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
        with pytest.raises(UserError, match=f"docker stop {CONTAINER}"):
            OllamaContainer(QUIET)
        assert sibling.status() == "running"


def test_it_is_open_to_this_machine_alone(sibling):
    with OllamaContainer(QUIET).running():
        (published,) = sibling.container().ports["11434/tcp"]
        assert published == {"HostIp": "127.0.0.1", "HostPort": sibling.host.split(":")[1]}


def test_the_sweep_of_dead_launchers_containers_passes_it_by(sibling):
    with OllamaContainer(QUIET).running():
        DockerEngine().sweep(QUIET)
        assert sibling.status() == "running"


@pytest.mark.parametrize("elsewhere", ["gpu-box:11434", "https://127.0.0.1:11434", "127.0.0.1:0"])
def test_an_address_that_no_container_here_can_have_is_a_sentence(sibling, monkeypatch, elsewhere):
    monkeypatch.setenv("OLLAMA_HOST", elsewhere)
    with pytest.raises(UserError, match=r"OLLAMA_HOST: is .*--ollama host"):
        OllamaContainer(QUIET)


def test_an_unknown_choice_is_a_sentence(project):
    done = invoke(project, "verify", "--model", NAME, "--ollama", "none")
    assert done.returncode == 2
    assert "Known: host, container" in done.stderr
    with pytest.raises(UserError, match="Known: auto, host, container, none"):
        choose_server("sibling", QUIET)
