"""A remembered digest is that of the file, whatever was done to the file and to the memory."""

import json
import os

import pytest

from contract.digest import digest_of_file
from launcher.pipeline.file_digests import FileDigests


@pytest.fixture
def memory(tmp_path):
    return tmp_path / "cache" / "digests.json"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"one model")
    return path


def rewritten(file):
    file.write_bytes(b"two model")


def replaced(file):
    other = file.with_name("other")
    other.write_bytes(b"two model")
    other.replace(file)


@pytest.mark.parametrize("change", [rewritten, replaced])
def test_another_file_of_the_same_size_and_date_is_read_again(file, memory, change):
    digests = FileDigests(memory)
    before, status = digests.of(file), file.stat()
    digests.save()
    change(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == status.st_mtime_ns
    for known in (digests, FileDigests(memory)):
        assert known.of(file) == digest_of_file(file) != before


def test_a_file_that_is_written_again_at_once_is_read_again(file, memory):
    digests = FileDigests(memory)
    for number in range(50):
        content = f"{number:09}".encode()
        file.write_bytes(content)
        os.utime(file, ns=(0, 0))
        assert digests.of(file) == digest_of_file(file)


def test_what_is_unchanged_is_not_read_again(file, memory, monkeypatch):
    digests = FileDigests(memory)
    digest = digests.of(file)
    digests.save()
    monkeypatch.setattr("launcher.pipeline.file_digests.digest_of_file", None)
    assert FileDigests(memory).of(file) == digest


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"a": [1, 2, "of another version"]}', b'{"a": 1}'],
)
def test_a_damaged_memory_is_begun_anew(file, memory, damaged):
    memory.parent.mkdir()
    memory.write_bytes(damaged)
    digests = FileDigests(memory)
    assert digests.of(file) == digest_of_file(file)
    digests.save()
    assert list(json.loads(memory.read_text())) == [str(file)]


def test_two_launchers_lose_nothing_of_each_others(file, memory, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"other")
    first, second = FileDigests(memory), FileDigests(memory)
    first.of(file)
    second.of(other)
    first.save()
    second.save()
    assert set(json.loads(memory.read_text())) == {str(file), str(other)}


def test_what_one_launcher_knows_no_better_does_not_replace_what_another_read(file, memory):
    old = FileDigests(memory)
    old.of(file)
    old.save()
    stale = FileDigests(memory)
    file.write_bytes(b"two model")
    fresh = FileDigests(memory)
    fresh.of(file)
    fresh.save()
    saved = memory.read_text()
    stale.save()
    assert memory.read_text() == saved
