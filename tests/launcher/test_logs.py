"""A log is written where it seems to be."""

import sys

import pytest

from contract.errors import UserError
from launcher.runtime.logged_process import open_log, run_logged


def test_a_log_is_begun_anew(tmp_path):
    log = tmp_path / "logs" / "l.log"
    for text in ("first, longer", "second"):
        with open_log(log) as file:
            file.write(text)
    assert log.read_text() == "second"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_its_place_is_not_followed(tmp_path, there):
    own = tmp_path / ".bashrc"
    if there:
        own.write_text("alias")
    log = tmp_path / "l.log"
    log.symlink_to(own)
    command = [sys.executable, "-V"]
    for write in (lambda: open_log(log), lambda: run_logged(command, log, environment={})):
        with pytest.raises(UserError, match=r"l\.log: is a symbolic link, .* Remove it"):
            write()
    assert (own.read_text() == "alias") if there else not own.exists()
