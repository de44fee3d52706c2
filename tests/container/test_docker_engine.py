"""The engine `docker`, against a real one. Fails without an engine; see CONTRIBUTING.md.

Run by `./invoke test --container`.
"""

import signal
import subprocess
import time
from dataclasses import dataclass

import pytest

from launcher import images
from launcher.display import Display
from launcher.engine.docker import DockerEngine
from launcher.engine.interface import Job, Mount
from tests.conftest import fresh_copy, invoke, run_smoke
from trainer.contract.digest import digest_of_file
from trainer.contract.errors import UserError
from trainer.contract.events import Result

QUIET = Display(quiet=True)
FILES = [
    "adapter/adapter_model.safetensors",
    "gguf/model-f16.gguf",
    "gguf/model-q8_0.gguf",
    "Modelfile",
]


@dataclass(frozen=True)
class Probe(Job):
    """A job that runs a piece of Python in place of a stage, in the very same container."""

    code: str = ""

    def command(self):
        return ["python", "-c", self.code]


@pytest.fixture(scope="module")
def engine():
    return DockerEngine()


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "un dossier d'été"
    folder.mkdir()
    return folder


def probe(engine, run, code, **more):
    """The values that the code reports from inside, and its exit code."""
    values = {}

    def on_event(event):
        if isinstance(event, Result):
            values.update(event.values)

    preamble = (
        "import json, os, socket, time\n"
        "def say(**values):\n"
        "    print(json.dumps({'event': 'result', 'values': values}), flush=True)\n"
        "def refused(attempt):\n"
        "    try:\n"
        "        attempt()\n"
        "    except OSError as error:\n"
        "        return type(error).__name__ + ' ' + str(error.errno)\n"
        "    return 'allowed'\n"
    )
    mounts = (Mount("run", run, writable=True), *more.pop("mounts", ()))
    job = Probe(
        module="trainer.probe",
        lock="rtx",
        mounts=mounts,
        log=run / "log",
        code=preamble + code,
        **more,
    )
    code = engine.run(job, on_event, QUIET)
    return values, code


def test_a_stage_can_write_its_run_and_nothing_else(engine, run, tmp_path):
    data = tmp_path / "données.jsonl"
    data.write_text("{}")
    values, code = probe(
        engine,
        run,
        "say(run=refused(lambda: open('/affineur/run/x', 'w').write('1')),"
        " data=refused(lambda: open('/affineur/data/données.jsonl', 'a')),"
        " code=refused(lambda: open('/opt/affineur/x', 'w')),"
        " root=refused(lambda: open('/x', 'w')),"
        " tmp=refused(lambda: open('/tmp/x', 'w')))",
        mounts=(Mount("data", data),),
    )
    assert code == 0, (run / "log").read_text()
    # 30 is EROFS, a read-only file system.
    assert values == {
        "run": "allowed",
        "data": "OSError 30",
        "code": "OSError 30",
        "root": "OSError 30",
        "tmp": "allowed",
    }
    assert (run / "x").read_text() == "1"


def test_a_stage_has_no_network_no_capabilities_and_no_way_to_the_engine(engine, run):
    values, code = probe(
        engine,
        run,
        "status = dict(l.split(':\\t') for l in open('/proc/self/status') if ':\\t' in l)\n"
        "say(interfaces=sorted(name for _, name in socket.if_nameindex()),"
        " capabilities=int(status['CapEff'].strip(), 16),"
        " no_new_privileges=status['NoNewPrivs'].strip(),"
        " socket=os.path.exists('/var/run/docker.sock'),"
        " token='HF_TOKEN' in os.environ)",
    )
    assert code == 0, (run / "log").read_text()
    assert values["interfaces"] == ["lo"]
    assert values["capabilities"] == 0
    assert values["no_new_privileges"] == "1"
    assert values["socket"] is False
    assert values["token"] is False


def test_a_job_with_network_has_one(engine, run):
    values, _ = probe(
        engine, run, "say(names=[name for _, name in socket.if_nameindex()])", network=True
    )
    assert len(values["names"]) > 1


def test_a_user_without_a_name_can_run_torch_and_owns_what_it_writes(engine, run, monkeypatch):
    run.chmod(0o777)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    monkeypatch.setattr("os.getgid", lambda: 23456)
    values, code = probe(
        engine,
        run,
        "import getpass, torch\n"
        "open('/affineur/run/mine', 'w').close()\n"
        "say(user=getpass.getuser(), cuda=torch.version.cuda, kernels=torch.cuda.get_arch_list())",
    )
    assert code == 0, (run / "log").read_text()
    assert values["user"] == "affineur"
    assert values["cuda"] == "13.0"
    assert {"sm_80", "sm_86", "sm_90", "sm_120"} <= set(values["kernels"])
    status = (run / "mine").stat()
    assert (status.st_uid, status.st_gid) == (12345, 23456)


def test_what_a_job_prints_besides_its_events_is_logged(engine, run):
    _, code = probe(engine, run, "import sys\nprint('stray')\nsys.stderr.write('a warning é\\n')")
    assert code == 0
    log = (run / "log").read_text()
    assert "stray" in log
    assert "a warning é" in log


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("raise SystemExit(2)", 2),
        ("import signal; os.kill(os.getpid(), signal.SIGKILL)", 0),
        ("import os\nos._exit(137)", -9),
        ("import os\nos._exit(139)", -11),
        ("import os\nos._exit(143)", -15),
        ("raise SystemExit(130)", 130),
    ],
)
def test_how_a_container_ended_is_told(engine, run, code, ended):
    # The first process of a container cannot kill itself: the kernel shields it.
    assert probe(engine, run, code)[1] == ended


def test_no_container_is_left_behind(engine, run):
    probe(engine, run, "say(a=1)")
    assert ours(engine) == []


def ours(engine):
    return engine._client.containers.list(
        all=True, filters={"label": "dev.affineur.project=affineur"}
    )


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
        with pytest.raises(UserError, match="speaks contract 0, and this launcher speaks 1"):
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
    done = invoke(project, "build", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    after = engine._client.images.get(images.tag("rtx")).attrs["RootFS"]["Layers"]
    # The base's and the packages' layers; behind them stand an empty folder and our sources.
    assert after[:2] == before[:2]
    assert after[-1] != before[-1]


def test_containers_give_the_bytes_that_the_local_engine_gives(smoke_run, tmp_path):
    contained = run_smoke(fresh_copy(tmp_path / "clone é"), "--engine", "docker")
    assert contained.folder.name == smoke_run.folder.name
    assert {record.engine for record in contained.manifest.stages} == {"docker"}
    for name in FILES:
        assert digest_of_file(contained.folder / name) == digest_of_file(smoke_run.folder / name)


def test_a_dead_launchers_container_is_removed_and_the_run_goes_on(engine, smoke_run, tmp_path):
    project = fresh_copy(tmp_path / "clone")
    (project / "data" / "cache").symlink_to(smoke_run.project / "data" / "cache")
    command = [str(project / "invoke"), "train", "--profile", "smoke", "--engine", "docker"]
    process = subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list((project / "data" / "models").glob("*/*/metrics.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(ours(engine)) == 1
    done = invoke(project, "train", "--profile", "smoke", "--engine", "docker")
    assert done.returncode == 0, done.stderr
    assert "left by a dead launcher" in done.stderr
    assert ours(engine) == []


def test_a_stopped_launcher_stops_its_container(engine, smoke_run, tmp_path):
    project = fresh_copy(tmp_path / "clone")
    (project / "data" / "cache").symlink_to(smoke_run.project / "data" / "cache")
    command = [str(project / "invoke"), "train", "--profile", "smoke", "--engine", "docker"]
    process = subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True)
    while not ours(engine):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=150)[1]
    assert process.returncode == 130, said
    assert ours(engine) == []
    assert "Traceback" not in said
