"""What a container would be given of this machine's files; tests/container has the containers."""

import os

import pytest

from contract.errors import UserError
from launcher.runtime import docker_mounts
from launcher.runtime.docker_mounts import ContainerUser, binds_of, check_access
from launcher.runtime.engine import Mount

STRANGER = ContainerUser(uid=54321, gid=54321)


@pytest.fixture
def snapshot(tmp_path):
    """A model as the Hugging Face cache has it: links from the snapshot to the blobs."""
    blobs, folder = tmp_path / "model" / "blobs", tmp_path / "model" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    (folder / "below").mkdir(parents=True)
    for name in ("config.json", "below/more.json"):
        blob = blobs / name.replace("/", "-")
        blob.write_text(name)
        (folder / name).symlink_to(os.path.relpath(blob, (folder / name).parent))
    (folder / "README.md").write_text("a file")
    return folder


def test_a_snapshot_of_links_is_mounted_file_by_file(snapshot):
    found = {
        str(bind.inside): bind.source.read_text() for bind in binds_of([Mount("base", snapshot)])
    }
    assert found == {
        "/affineur/base/config.json": "config.json",
        "/affineur/base/below/more.json": "below/more.json",
        "/affineur/base/README.md": "a file",
    }


def test_a_link_to_a_folder_elsewhere_is_mounted_at_its_name(snapshot, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (snapshot / "folder").symlink_to(tmp_path / "elsewhere")
    sources = {bind.source for bind in binds_of([Mount("base", snapshot)])}
    assert tmp_path / "elsewhere" in sources


def test_a_folder_whose_links_stay_in_it_is_mounted_whole(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "b").symlink_to("a")
    (bind,) = binds_of([Mount("base", tmp_path)])
    assert bind.source == tmp_path


def test_a_link_that_a_stage_may_have_made_is_not_followed(snapshot, tmp_path, monkeypatch):
    monkeypatch.setattr(docker_mounts, "_WRITTEN_BY_STAGES", (tmp_path,))
    (bind,) = binds_of([Mount("base", snapshot)])
    assert bind.source == snapshot
    assert not bind.writable


def test_a_runs_folder_is_written_by_stages_wherever_it_lies(snapshot):
    (bind,) = binds_of([Mount("run", snapshot)])
    assert bind.source == snapshot


def test_what_the_containers_user_cannot_read_is_named_before_it_starts(tmp_path):
    data = tmp_path / "données.jsonl"
    data.write_text("{}")
    data.chmod(0o600)
    own = os.getuid()
    check_access([Mount("data", data)], ContainerUser(own, os.getgid()))
    with pytest.raises(UserError) as refused:
        check_access([Mount("data", data)], STRANGER)
    assert str(refused.value) == (
        f"{data}: cannot be read in a container: it belongs to user {own}, and stages run there "
        f"as user 54321. Let others read it (chmod -R a+rX {data}), or use --engine local."
    )
    data.chmod(0o604)
    check_access([Mount("data", data)], STRANGER)
    # The group's bits count for the group alone, and not its rights for others.
    data.chmod(0o640)
    check_access([Mount("data", data)], ContainerUser(54321, os.getgid()))
    with pytest.raises(UserError):
        check_access([Mount("data", data)], STRANGER)


def test_root_is_told_that_it_has_no_privileges_there(tmp_path):
    data = tmp_path / "d.jsonl"
    data.write_text("{}")
    # 0o044 is for everybody but its owner, whoever runs this.
    data.chmod(0o044 if os.getuid() == 0 else 0o600)
    with pytest.raises(UserError, match=r"without root's privileges\. Run ./invoke as its owner"):
        check_access([Mount("data", data)], ContainerUser(0, 0))


def test_one_file_of_a_folder_is_enough(snapshot):
    (snapshot / "README.md").chmod(0o600)
    with pytest.raises(UserError, match=r"README\.md: cannot be read"):
        check_access([Mount("base", snapshot)], STRANGER)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(UserError, match=r"cannot be written in a container.*chown -R 54321"):
        check_access([Mount("run", tmp_path, writable=True)], STRANGER)
    tmp_path.chmod(0o777)
    check_access([Mount("run", tmp_path, writable=True)], STRANGER)
