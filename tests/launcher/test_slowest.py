"""The table of slow tests that .ci/run ends with."""

import subprocess
import sys

from tests.slowest import slowest

CASES = """
import time, pytest
@pytest.fixture(scope="module")
def prepared():
    time.sleep(0.3)
def test_waits_in_setup(prepared): pass
def test_waits_itself(): time.sleep(0.2)
@pytest.mark.parametrize("number", range(30))
def test_quick(prepared, number): pass
"""


def test_the_slowest_of_several_runs_are_told_with_their_setup(tmp_path):
    (tmp_path / "test_first.py").write_text(CASES)
    (tmp_path / "test_second.py").write_text("import time\ndef test_b(): time.sleep(0.4)\n")
    files = []
    for name in ("first", "second"):
        files.append(tmp_path / f"{name}.xml")
        command = [sys.executable, "-m", "pytest", f"--junitxml={files[-1]}", f"test_{name}.py"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = slowest(files)
    assert len(found) == 20
    assert [name for _, name in found[:3]] == [
        "test_second::test_b",
        "test_first::test_waits_in_setup",
        "test_first::test_waits_itself",
    ]
    assert found[0][0] >= 0.4
