"""Inputs that lie on this machine as people have them are read in containers as well."""

import os

import pytest

from contract.errors import UserError
from launcher.runtime.engine import Mount
from tests.container.conftest import ours, probe

READ = (
    "import glob\n"
    "say(**{os.path.relpath(p, '/affineur/base'): open(p).read()"
    " for p in glob.glob('/affineur/base/**', recursive=True) if os.path.isfile(p)},"
    " written=refused(lambda: open('/affineur/base/config.json', 'a')))"
)


def test_a_snapshot_of_the_hugging_face_cache_is_read_and_not_written(engine, run, tmp_path):
    blobs, folder = tmp_path / "m" / "blobs", tmp_path / "m" / "snapshots" / "été"
    blobs.mkdir(parents=True)
    (folder / "below").mkdir(parents=True)
    for name in ("config.json", "below/a b, c.json"):
        blob = blobs / f"{len(name)}"
        blob.write_text(name)
        (folder / name).symlink_to(os.path.relpath(blob, (folder / name).parent))
    values, ending = probe(engine, run, READ, mounts=(Mount("base", folder),))
    assert ending.code == 0, (run / "log").read_text()
    assert values == {
        "config.json": "config.json",
        "below/a b, c.json": "below/a b, c.json",
        "written": "OSError 30",
    }


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o444])
def test_what_is_refused_before_the_start_is_what_the_container_could_not_read(
    engine, run, tmp_path, monkeypatch, mode
):
    data = tmp_path / "d.jsonl"
    data.write_text("{}")
    data.chmod(mode)
    out = run / ".work" / "probe"
    out.mkdir(parents=True)
    for folder in (run, out):
        folder.chmod(0o777)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    monkeypatch.setattr("os.getgid", lambda: 23456)
    code = "say(read=refused(lambda: open('/affineur/data/d.jsonl').read()))"
    mounts = (Mount("data", data),)
    refused = None
    try:
        probe(engine, run, code, mounts=mounts)
    except UserError as error:
        refused = str(error)
    assert ours(engine) == []
    # The kernel's own judgement, where ours is not asked.
    monkeypatch.setattr("launcher.runtime.docker_engine.check_access", lambda *_: None)
    values, _ = probe(engine, run, code, mounts=mounts)
    assert (values["read"] == "allowed") == (refused is None)
    assert refused is None or "cannot be read in a container" in refused
