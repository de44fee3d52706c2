"""What a stage can reach in its container: listed and compared, and tried.

The lists are whole: what is added to a container has to be added here, with its reason.
"""

import json
import os
import socket
import stat
from threading import Thread

import pytest

from contract.child_environment import CERTIFICATES
from launcher.runtime.engine import Mount
from tests.container.conftest import ours, probe, written

# Of the image and its base, of Python, of every container, and of every job.
ENVIRONMENT = {
    *("PATH", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "PYTHONDONTWRITEBYTECODE"),
    *("LANG", "GPG_KEY", "PYTHON_VERSION", "PYTHON_SHA256", "LC_CTYPE"),
    *("HOSTNAME", "HOME", "USER", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
    *("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"),
    *("PYTHONHASHSEED", "PYTHONUNBUFFERED", "TOKENIZERS_PARALLELISM", "OMP_WAIT_POLICY"),
    *(
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
        "GOMP_SPINCOUNT",
        "CUBLAS_WORKSPACE_CONFIG",
        "AFFINEUR_LAUNCHED",
    ),
}
# What the engine itself mounts into every container, and the kernel's own file systems.
OF_THE_ENGINE = {
    *("/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"),
    *("/etc/resolv.conf", "/etc/hostname", "/etc/hosts"),
}
OF_THE_KERNEL = {"proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"}
NO_ENTRY = {"OSError 30", "PermissionError 13", "PermissionError 1", "FileNotFoundError 2"}


@pytest.fixture
def mounts(tmp_path):
    data = tmp_path / "données.jsonl"
    data.write_text("{}")
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    return (Mount("data", data), Mount("base", base))


def test_who_a_stage_is_and_what_it_may(engine, run):
    values, ending = probe(
        engine,
        run,
        "status = dict(l.split(':\\t') for l in open('/proc/self/status') if ':\\t' in l)\n"
        "say(id=[os.getuid(), os.geteuid(), os.getgid(), os.getegid()], groups=os.getgroups(),"
        " capabilities={n: int(status[n], 16) for n in status if n.startswith('Cap')},"
        " no_new_privileges=status['NoNewPrivs'].strip(), filtered=status['Seccomp'].strip(),"
        " processes=sorted(int(n) for n in os.listdir('/proc') if n.isdigit()),"
        " privileged=sorted(os.path.join(place, name) for place, _, names in os.walk('/usr')"
        "   for name in names if os.lstat(os.path.join(place, name)).st_mode & 0o6000),"
        " become_root=refused(lambda: os.setuid(0)) if os.getuid() else None)",
    )
    assert ending.code == 0, (run / "log").read_text()
    facts = engine.facts()
    uid, gid = (0, 0) if facts.rootless else (os.getuid(), os.getgid())
    assert values["id"] == [uid, uid, gid, gid]
    assert set(values["groups"]) <= {gid}
    capabilities = values["capabilities"]
    assert set(capabilities) == {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
    assert set(capabilities.values()) == {0}
    # Programs of the base image that belong to root and run as root are of no use: see above.
    assert values["no_new_privileges"] == "1"
    # 2 is a filter of system calls.
    assert values["filtered"] == "2"
    assert values["processes"] == [1]
    assert values["become_root"] in {None, "PermissionError 1"}


def test_what_is_mounted_and_how(engine, run, mounts):
    values, ending = probe(
        engine,
        run,
        "found = [line.split() for line in open('/proc/self/mounts')]\n"
        "say(mounts={place: options.split(',') for _, place, _, options, *_ in found},"
        " kinds={place: kind for _, place, kind, *_ in found})",
        mounts=mounts,
    )
    assert ending.code == 0, (run / "log").read_text()
    found, kinds = values["mounts"], values["kinds"]
    given = {"/affineur/run", "/affineur/out", "/affineur/data/données.jsonl", "/affineur/base"}
    # Shields that the engine lays over parts of the kernel's own.
    shields = {place for place in found if place.startswith(("/proc/", "/sys/"))}
    assert set(found) - shields == {*OF_THE_ENGINE, *given, "/tmp"}
    writable = {place for place, options in found.items() if "rw" in options}
    # All else that can be written is in memory and the container's own.
    on_disk = {place for place in writable if kinds[place] not in {"tmpfs", *OF_THE_KERNEL}}
    assert on_disk == {"/affineur/out"}
    assert {place for place in writable if kinds[place] == "tmpfs"} - shields == {
        *("/tmp", "/dev", "/dev/shm"),
    }
    for place in ("/", "/sys", "/proc/sys", "/proc/bus", "/proc/irq"):
        assert "ro" in found[place], place


def test_which_devices_there_are(engine, run):
    values, _ = probe(
        engine,
        run,
        "import stat\n"
        "say(devices=sorted(name for name in os.listdir('/dev')"
        " if stat.S_ISCHR(os.stat('/dev/' + name).st_mode)"
        " or stat.S_ISBLK(os.stat('/dev/' + name).st_mode)))",
    )
    harmless = {"full", "null", "ptmx", "random", "stderr", "stdin", "stdout", "tty", "urandom"}
    assert set(values["devices"]) <= {*harmless, "zero"}


def test_the_environment_is_listed(engine, run, monkeypatch):
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "SSL_CERT_FILE", "PYTHONPATH"):
        monkeypatch.setenv(name, "the launcher's own")
    values, _ = probe(engine, run, "say(**os.environ)")
    assert set(values) <= ENVIRONMENT
    assert "AFFINEUR_LAUNCHED" in values
    assert "the launcher's own" not in values.values()
    with_network, _ = probe(engine, run, "say(**os.environ)", network=True)
    assert set(with_network) - set(values) <= {"HTTPS_PROXY", *CERTIFICATES}


def test_there_is_no_way_out(engine, run):
    # A server on this machine, and one that a container could only reach over its bridge.
    here = socket.create_server(("0.0.0.0", 0))
    bridge = engine._client.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    port = here.getsockname()[1]
    tries = [("1.1.1.1", 53), ("127.0.0.1", port), (bridge, port), ("169.254.169.254", 80)]
    with here:
        values, ending = probe(
            engine,
            run,
            "say(interfaces=sorted(name for _, name in socket.if_nameindex()),"
            " routes=open('/proc/net/route').read().splitlines()[1:],"
            f" tcp=[refused(lambda a=a: socket.create_connection(tuple(a), 5)) for a in {tries}],"
            " udp=refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
            "   .sendto(b'x', ('1.1.1.1', 53))),"
            " raw=refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),"
            " name=refused(lambda: socket.getaddrinfo('huggingface.co', 443)))",
        )
        here.settimeout(0)
        with pytest.raises(BlockingIOError):
            here.accept()
    assert ending.code == 0, (run / "log").read_text()
    assert values["interfaces"] == ["lo"]
    assert values["routes"] == []
    # 101 is ENETUNREACH, 111 ECONNREFUSED by the container's own loopback.
    assert [said.split()[-1] for said in values["tcp"]] == ["101", "111", "101", "101"]
    assert values["udp"].endswith(" 101")
    assert values["raw"] == "PermissionError 1"
    assert values["name"].startswith("gaierror")


def test_a_stage_can_write_to_its_own_folder_and_nothing_else(engine, run, mounts):
    values, ending = probe(
        engine,
        run,
        "def write(path): open(path, 'w').write('1')\n"
        "say(**{path: refused(lambda: write(path)) for path in ["
        " '/affineur/out/x', '/affineur/run/x', '/affineur/run/logs/merge.log',"
        " '/affineur/run/.work/probe/y', '/tmp/x',"
        " '/affineur/data/données.jsonl', '/affineur/data/new',"
        " '/affineur/base/config.json', '/affineur/base/new', '/affineur/new', '/opt/affineur/x',"
        " '/x', '/etc/passwd', '/usr/bin/python3', '/proc/sys/kernel/core_pattern',"
        " '/proc/sysrq-trigger', '/sys/kernel/uevent_helper', '/sys/fs/cgroup/memory.max']})",
        mounts=mounts,
    )
    assert ending.code == 0, (run / "log").read_text()
    assert {path for path, said in values.items() if said == "allowed"} == {
        "/affineur/out/x",
        "/tmp/x",
    }
    assert set(values.values()) <= {"allowed", *NO_ENTRY}
    assert (written(run) / "x").read_text() == "1"


def test_what_a_stage_may_not_do(engine, run, mounts, tmp_path):
    """Links, mounts, devices, namespaces, other processes, the kernel."""
    outside = tmp_path / "outside"
    outside.write_text("not for stages")
    values, ending = probe(
        engine,
        run,
        "import ctypes, stat\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(name, *words):\n"
        "    if getattr(libc, name)(*words) < 0:\n"
        "        raise OSError(ctypes.get_errno(), name)\n"
        "say(link=refused(lambda: os.link('/affineur/base/config.json', '/affineur/out/hard')),"
        " through=refused(lambda: (os.symlink("
        f"   {str(outside)!r}, '/affineur/out/soft'), open('/affineur/out/soft').read())),"
        " mount=refused(lambda: call('mount', b'none', b'/tmp', b'tmpfs', 0, None)),"
        " remount=refused(lambda: call('mount', None, b'/', None, 32, None)),"
        " device=refused(lambda: os.mknod('/tmp/disk', stat.S_IFBLK | 0o600, os.makedev(8, 0))),"
        " namespace=refused(lambda: call('unshare', 0x10000000)),"
        " chroot=refused(lambda: os.chroot('/tmp')),"
        " clock=refused(lambda: time.clock_settime(time.CLOCK_REALTIME, 0)),"
        " owner=refused(lambda: os.chown('/affineur/out', 1, 1)),"
        " nice=refused(lambda: os.nice(-5)),"
        " trace=refused(lambda: call('ptrace', 16, 1, None, None)))",
        mounts=mounts,
    )
    assert ending.code == 0, (run / "log").read_text()
    # A link of another file system cannot be made, and one that names a path finds nothing there.
    assert values.pop("link") == "OSError 18"
    assert values.pop("through") == "FileNotFoundError 2"
    assert set(values.values()) <= NO_ENTRY, values


def test_no_secret_and_no_engine_is_within_reach(engine, run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_another_job")
    (tmp_path / "neighbour").write_text("hf_in_a_file")
    places = [
        *("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"),
        *("/root/.ssh", "/root/.netrc", "/root/.docker/config.json", "/root/.cache/huggingface"),
        *("/proc/kcore", "/dev/mem", "/var/lib/docker", "/run/secrets"),
        *(str(tmp_path), str(tmp_path / "neighbour"), str(run)),
    ]
    values, ending = probe(
        engine,
        run,
        "def look(place):\n"
        "    os.listdir(place) if os.path.isdir(place) else open(place, 'rb').read(1)\n"
        f"say(found=[place for place in {places!r} if refused(lambda: look(place)) == 'allowed'],"
        " sockets=[os.path.join(p, n) for p, _, names in os.walk('/run') for n in names],"
        " said=launch(), described=open('/proc/self/environ').read())",
    )
    assert ending.code == 0, (run / "log").read_text()
    # Masked by the engine: it can be opened, and holds nothing.
    assert set(values["found"]) <= {"/proc/kcore"}
    assert values["sockets"] == []
    assert values["said"] == {"secrets": {}}
    assert "hf_of" not in values["described"]


def test_the_job_that_needs_a_secret_is_told_it_and_no_description_holds_it(engine, run):
    secret = "hf_for_this_job_alone"
    seen = []

    def look():
        while not (written(run) / "told").exists():
            pass
        for container in ours(engine):
            seen.append(json.dumps(engine._client.api.inspect_container(container.id)))
            seen.append(json.dumps(container.top()))
            seen.append(container.logs().decode())
        (written(run) / "looked").touch()

    observer = Thread(target=look, daemon=True)
    observer.start()
    values, ending = probe(
        engine,
        run,
        "told = launch()['secrets']['HF_TOKEN']\n"
        "open('/affineur/out/told', 'w').close()\n"
        "while not os.path.exists('/affineur/out/looked'): time.sleep(0.05)\n"
        "say(length=len(told), passed_on=subprocess.run(['env'], capture_output=True,"
        " text=True).stdout.count(told))",
        secrets={"HF_TOKEN": secret},
        network=True,
    )
    observer.join()
    assert ending.code == 0, (run / "log").read_text()
    assert values == {"length": len(secret), "passed_on": 0}
    assert len(seen) == 3
    # On the way to the right thing: the description does name the container and its launcher.
    assert "dev.affineur.launcher" in seen[0]
    assert not any(secret in text for text in seen)
    assert secret not in (run / "log").read_text()


def test_outputs_are_the_callers_and_run_as_nobody_else(engine, run):
    probe(
        engine,
        run,
        "os.umask(0); open('/affineur/out/made', 'w').close()\n"
        "os.chmod('/affineur/out/made', 0o4755)",
    )
    status = (written(run) / "made").stat()
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    assert stat.S_ISREG(status.st_mode)
