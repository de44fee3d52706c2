"""Two of a kind at once: one after the other, or one is told to wait; never half of each."""

import shutil
import subprocess
import time

from launcher.project import MODELS_FILE
from tests.conftest import bare_clone
from tests.faults.conftest import NAME, SmallRun, count, drawn, start_over, times
from tests.launcher.test_promotions_at_once import PROCESSES, check_promotions_at_once


def test_two_runs_of_one_recipe(small, undisturbed):
    random = drawn("two runs")
    for _ in range(times(4)):
        start_over(small)
        first = small.begin()
        time.sleep(random.uniform(0, 5))
        second = small.begin()
        ended = [(p.communicate()[1], p.returncode) for p in (first, second)]
        assert sorted(code for _, code in ended) in ([0, 0], [0, 2]), ended
        for said, code in ended:
            assert "Traceback" not in said
            assert code == 0 or "is in use by another run" in said, said
        small.check_whole(undisturbed.outputs)
        count("two runs of one recipe at once", "one ran, one was told to wait")


def test_two_first_starts(small, undisturbed, tmp_path, monkeypatch):
    """The caches hold nothing but environments: both want the base and llama.cpp's sources."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project = bare_clone(small.project, tmp_path / "clone")
    cache = project / "data" / "cache"
    environments = (cache / "environments").resolve()
    cache.unlink()
    cache.mkdir(parents=True)
    (cache / "environments").symlink_to(environments)
    shutil.copy(small.project / "data" / "training" / "small.jsonl", project / "data" / "training")
    run = SmallRun(project)
    processes = [run.begin(), run.begin(output_model_name="other")]
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
    made = list((project / "data" / "models").glob("*/*/manifest.json"))
    assert sorted(path.parents[1].name for path in made) == sorted([NAME, "other"])
    run.check_whole(undisturbed.outputs)
    count("two first starts at once", "both ran")


def test_promotions_at_once(tmp_path):
    """1,600 of them: every one is in the log, and the file is whole after each."""
    shutil.copy(MODELS_FILE, tmp_path / "models.yaml")
    check_promotions_at_once(tmp_path, times(200))
    kind = f"{PROCESSES} processes that promote {times(200)} times each"
    count(kind, "all in the log, in one chain")


def test_a_clock_that_is_set_back(small, undisturbed):
    """Whatever the files' dates say."""
    done = small.train()
    assert done.returncode == 0, done.stderr
    future = time.time() + 365 * 24 * 3600
    for path in sorted(small.folder.rglob("*")):
        subprocess.run(["touch", "-d", f"@{future:.0f}", str(path)], check=True)
    done = small.train()
    assert done.returncode == 0, done.stderr
    small.check_whole(undisturbed.outputs)
    count("files from the future", "nothing was made again, or the same")
