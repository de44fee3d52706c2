"""An image whose sources were edited while it was built loses its name, edit put back or not."""

import os

import pytest

from contract.errors import UserError
from launcher.runtime import images


@pytest.fixture
def source(tmp_path, monkeypatch):
    file = tmp_path / "stage.py"
    file.write_text("RANK = 8\n")
    monkeypatch.setattr(images, "_sources", lambda _: [file])
    return file


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """Stands in for the command; returns what it was called with."""
    (tmp_path / "bin").mkdir()
    program, called = tmp_path / "bin" / "docker", tmp_path / "called"
    program.write_text(f"#!/bin/sh\necho \"$@\" >>'{called}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return lambda: called.read_text() if called.exists() else ""


def test_an_edit_that_is_put_back_takes_the_tag_off(source, docker):
    def edit_and_put_back():
        status = source.stat()
        with images._unedited("rtx"):
            source.write_text("RANK = 9\n")
            source.write_text("RANK = 8\n")
            os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(UserError, match=r"stage\.py: was changed while the image rtx was built"):
        edit_and_put_back()
    assert docker() == "image rm --force affineur/trainer:rtx\n"


def test_sources_that_stay_keep_the_tag(source, docker):
    with images._unedited("rtx"):
        source.read_text()
    assert not docker()
