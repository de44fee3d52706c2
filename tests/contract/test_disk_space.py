"""A disk that is too full is named before work that fills it."""

import shutil
from pathlib import Path

import pytest

from contract.disk_space import check_disk_space, full_disk
from contract.errors import UserError


@pytest.fixture
def free_bytes(monkeypatch):
    def free(number):
        usage = shutil._ntuple_diskusage(10**12, 10**12 - number, number)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)

    return free


def check(folder, needed_bytes):
    check_disk_space(
        folder, needed_bytes, where="data/cache", purpose="the thing takes", remedy="Make room."
    )


def test_what_fits_is_let_through(free_bytes, tmp_path):
    free_bytes(2 * 10**9)
    check(tmp_path, 2 * 10**9)


def test_what_does_not_fit_says_where_how_much_and_what_to_do(free_bytes, tmp_path):
    free_bytes(2 * 10**9 - 1)
    with pytest.raises(UserError) as caught:
        check(tmp_path, 2 * 10**9)
    assert str(caught.value) == (
        "data/cache: the disk has 2.0 GB free, but the thing takes 2.0 GB. Make room."
    )


def write_on_a_full_disk():
    with Path("/dev/full").open("w") as file:
        file.write("x")


def caught(write):
    with pytest.raises((OSError, ValueError)) as found:
        write()
    return found.value


def test_an_error_of_a_full_disk_is_known_whoever_raises_it(tmp_path):
    direct = caught(write_on_a_full_disk)
    said = full_disk(direct, tmp_path)
    assert "its disk is full. Free some space and run the same command again" in str(said)
    # As safetensors and llama.cpp pass it on.
    assert full_disk(RuntimeError("I/O error: No space left on device (os error 28)"), tmp_path)

    def wrapped():
        try:
            write_on_a_full_disk()
        except OSError as error:
            raise ValueError("it did not work") from error

    assert full_disk(caught(wrapped), tmp_path)


def test_where_a_library_says_nothing_of_it_the_disk_is_asked(free_bytes, tmp_path):
    error = RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
    free_bytes(4096)
    assert "its disk is full" in str(full_disk(error, tmp_path))
    free_bytes(10**9)
    assert full_disk(error, tmp_path) is None


def test_another_error_is_another_error(tmp_path):
    assert full_disk(PermissionError(13, "Permission denied", "x"), tmp_path) is None
    assert full_disk(KeyError("loss"), tmp_path) is None
