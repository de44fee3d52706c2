"""A disk that fills, or may not be written to: a sentence, and nothing finished is lost."""

import os
import shutil
import subprocess

import pytest

from tests.faults.conftest import count, drawn, start_over, times

_LEAST_BYTES, _ENOUGH_BYTES = 1 << 18, 1 << 30


@pytest.fixture
def disk(small):
    """Mounts a small disk of its own where the runs lie, and changes its size."""
    if os.geteuid() != 0:
        pytest.fail("only root may mount a disk: run the campaign as root, as in a container")
    start_over(small)
    place = small.project / "data" / "models"
    place.mkdir(parents=True, exist_ok=True)

    def mount(*options):
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "none", place], check=True)

    mount(f"size={_LEAST_BYTES}")
    yield lambda size: mount("remount", f"size={size}")
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_fills(small, undisturbed, disk):
    random = drawn("disk")
    for _ in range(times(12)):
        start_over(small)
        disk(random.randrange(_LEAST_BYTES, undisturbed.size_bytes))
        done = small.train()
        ended = "large enough"
        if done.returncode != 0:
            assert done.returncode == 2, done.stderr
            assert "Traceback" not in done.stderr, done.stderr
            # Found full in the middle, or seen to be too small before the work.
            assert (
                "full" in done.stderr or "No space left" in done.stderr or "GB free" in done.stderr
            )
            assert small.processes() == []
            small.check_nothing_half_looks_whole()
            ended = "said, resumed, and the same to the byte"
        disk(_ENOUGH_BYTES)
        done = small.train()
        assert done.returncode == 0, done.stderr
        small.check_whole(undisturbed.outputs)
        count("a disk that fills", ended)


def test_a_disk_that_may_only_be_read(small, undisturbed, disk):
    disk(_ENOUGH_BYTES)
    done = small.train()
    assert done.returncode == 0, done.stderr
    shutil.rmtree(small.folder / "merged")
    place = small.project / "data" / "models"
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    done = small.train()
    subprocess.run(["mount", "-o", "remount,rw", place], check=True)
    assert done.returncode == 2, done.stderr
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    done = small.train()
    assert done.returncode == 0, done.stderr
    small.check_whole(undisturbed.outputs)
    count("a disk that may only be read", "said, and made again once it may be written")
