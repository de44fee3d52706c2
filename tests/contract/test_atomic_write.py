"""A result file is whole or not there."""

import os
from pathlib import Path

import pytest

from contract.atomic_write import atomic_write, atomic_writer
from contract.digest import digest_of_file, digest_of_value


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    atomic_write(path, "old")

    def full_disk(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.json"]


def test_a_file_that_is_written_piece_by_piece_is_whole_or_not_there(tmp_path):
    path = tmp_path / "sub" / "train.jsonl"
    # What one that was killed has left.
    path.parent.mkdir()
    (path.parent / ".train.jsonl.partial").write_text("left")
    with atomic_writer(path) as file:
        file.write(b"one\n")
        assert not path.exists()
        file.write(b"two\n")
    assert path.read_text() == "one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(TypeError), atomic_writer(path) as file:
        file.writelines([b"three\n", None])
    assert path.read_text() == "one\ntwo\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["train.jsonl"]


def test_a_file_is_readable_by_others(tmp_path):
    path = tmp_path / "sub" / "x.json"
    atomic_write(path, "é")
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.read_bytes() == "é".encode()


def test_a_values_digest_is_that_of_its_meaning():
    assert digest_of_value({"b": 1, "a": "é"}) == digest_of_value({"a": "é", "b": 1})
    assert digest_of_value({"a": 1}) != digest_of_value({"a": 1.5})


def test_a_files_digest_is_sha256(tmp_path):
    path: Path = tmp_path / "x"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of_file(path) == expected
