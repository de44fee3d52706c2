"""What a stage may do in its container, how its end is told, and what is left of it: nothing."""

import shutil
import time
from pathlib import Path
from threading import Thread

import pytest

from contract.errors import UserError
from contract.paths import WORK
from launcher.project import ROOT
from launcher.runtime.docker_engine import DockerEngine
from launcher.runtime.engine import Ending, Mount
from tests.container.conftest import ours, probe


def test_a_job_with_network_has_one_and_this_machines_certificates(engine, run, monkeypatch):
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    monkeypatch.setenv("AFFINEUR_CA", str(bundle))
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    code = (
        "say(names=[name for _, name in socket.if_nameindex()],"
        " hub=os.environ.get('HF_ENDPOINT'), said=launch()['secrets'],"
        " ca=os.path.getsize(os.environ.get('SSL_CERT_FILE', '/dev/null')))"
    )
    values, _ = probe(engine, run, code, network=True, secrets={"HF_TOKEN": "hf_x"})
    assert len(values["names"]) > 1
    assert values["hub"] == "https://hub.example"
    assert values["said"] == {"HF_TOKEN": "hf_x"}
    assert values["ca"] == bundle.stat().st_size
    closed, _ = probe(engine, run, code)
    assert closed == {"names": ["lo"], "hub": None, "said": {}, "ca": 0}


def test_a_user_without_a_name_can_run_torch_and_owns_what_it_writes(engine, run, monkeypatch):
    out = run / WORK / "probe"
    out.mkdir(parents=True)
    out.chmod(0o777)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    monkeypatch.setattr("os.getgid", lambda: 23456)
    values, ending = probe(
        engine,
        run,
        "import getpass, torch\n"
        "open('/affineur/out/mine', 'w').close()\n"
        "say(user=getpass.getuser(), one=int(torch.ones(1)))",
    )
    assert ending.code == 0, (run / "log").read_text()
    assert values == {"user": "affineur", "one": 1}
    status = (out / "mine").stat()
    assert (status.st_uid, status.st_gid) == (12345, 23456)


def test_what_a_job_prints_besides_its_events_is_logged(engine, run):
    _, ending = probe(engine, run, "import sys\nprint('stray')\nsys.stderr.write('a warning é\\n')")
    assert ending.code == 0
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
    assert probe(engine, run, code)[1] == Ending(ended)


def test_a_stage_that_passes_its_bound_of_memory_is_known_by_it(run):
    bounded = DockerEngine(memory="64m")
    _, ending = probe(bounded, run, "kept = bytearray(512 << 20)\nsay(a=1)")
    assert ending == Ending(-9, memory_ran_out=True, memory_limit_bytes=64 << 20)


def test_the_kernels_count_of_its_kills_is_read_inside_a_control_group(run):
    """The evidence of the local engine, against a real kernel: a child that passes the limit."""
    code = (
        "sys.path.insert(0, '/affineur')\n"
        "from launcher.runtime.oom_kills import oom_kills\n"
        "def ended(code):\n"
        "    before = oom_kills()\n"
        "    done = subprocess.run([sys.executable, '-c', code])\n"
        "    return [done.returncode, oom_kills() - before]\n"
        "say(by_kernel=ended('kept = bytearray(512 << 20)'),"
        " by_hand=ended('import os; os.kill(os.getpid(), 9)'))"
    )
    # Its code alone: each link below a mounted folder would be a mount of its own.
    package = Mount("launcher", ROOT / "launcher")
    values, _ = probe(DockerEngine(memory="128m"), run, code, mounts=(package,))
    assert values == {"by_kernel": [-9, 1], "by_hand": [-9, 0]}


def test_a_container_says_whose_it_is_and_is_killed_from_outside(engine, run):
    """`docker ps` tells people what runs; `docker kill` is told apart from a failure."""
    seen = {}

    def kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            running = [c for c in ours(engine) if c.status == "running"]
            if running:
                seen.update(running[0].labels, name=running[0].name)
                running[0].kill()
                return
            time.sleep(0.05)

    killer = Thread(target=kill)
    killer.start()
    labels = {"run": "0123abcd", "profile": "smoke"}
    _, ending = probe(engine, run, "time.sleep(300)", labels=labels)
    killer.join()
    assert ending == Ending(-9)
    assert seen["dev.affineur.project"] == "affineur"
    assert seen["dev.affineur.run"] == "0123abcd"
    assert seen["dev.affineur.profile"] == "smoke"
    assert seen["dev.affineur.contract"] == "1"
    assert seen["name"].startswith("affineur-probe-")
    assert ours(engine) == []


def test_a_folder_that_the_engine_does_not_see_is_said(engine, run, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    mount = Mount("data", gone)
    shutil.rmtree(gone)
    with pytest.raises(UserError, match="cannot access this machine's files"):
        probe(engine, run, "say(a=1)", mounts=(mount,))


def test_a_card_that_the_engine_cannot_reach_is_said(engine, run):
    if engine.facts().nvidia:
        pytest.fail("this test is about engines without NVIDIA's toolkit; run it on one")
    with pytest.raises(UserError, match="NVIDIA Container Toolkit"):
        probe(engine, run, "say(a=1)", gpu=True)
    assert ours(engine) == []


def test_no_container_is_left_behind(engine, run):
    probe(engine, run, "say(a=1)")
    assert ours(engine) == []
