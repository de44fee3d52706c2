"""A disk that is too full is named before work that fills it."""

import shutil

import pytest

from contract.disk_space import check_disk_space
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
