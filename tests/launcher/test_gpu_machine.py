"""What a GPU machine without a network is given, and what it says without a GPU."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks import gpu_machine
from benchmarks.gpu import SETTINGS, Line, Measured, row_lengths, table
from launcher.configuration import resolve
from launcher.project import ROOT
from launcher.runtime.dependency_locks import pinned
from tests.stage_runs import stage_environment


@pytest.mark.parametrize("lock", gpu_machine.PACKAGES)
def test_its_packages_are_the_locks_with_their_hashes(lock):
    packages = gpu_machine.PACKAGES[lock]
    text = gpu_machine.requirements(lock, packages)
    entries = text.replace("\\\n", "").splitlines()
    assert [entry.split()[0] for entry in entries] == [
        f"{name}=={pinned(lock)[name]}" for name in packages
    ]
    assert all("--hash=sha256:" in entry for entry in entries)


def test_a_package_that_no_lock_has_is_not_left_out_silently():
    with pytest.raises(KeyError, match="unsloth"):
        gpu_machine.requirements("rtx", ["unsloth"])


def test_of_bitsandbytes_only_the_library_of_that_cuda_is_carried(tmp_path):
    libraries = ["cpu", "cuda118", "cuda130", "cuda132", "rocm72", "xpu2026"]
    files = [f"bitsandbytes/libbitsandbytes_{name}.so" for name in libraries]
    kept = ["bitsandbytes/__init__.py", "bitsandbytes-0.50.2.dist-info/METADATA", "dill/lib.so"]
    dropped = ["bin/accelerate", "dill/__pycache__/__init__.cpython-312.pyc"]
    for file in [*files, *kept, *dropped]:
        (tmp_path / "site" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / file).write_text(file)
    gpu_machine.archive(tmp_path / "site", tmp_path / "packages.zip", cuda="13.0")
    with zipfile.ZipFile(tmp_path / "packages.zip") as packed:
        assert set(packed.namelist()) == {*kept, files[0], files[2]}
        assert packed.read(files[2]).decode() == files[2]


def test_it_starts_with_the_standard_library_alone():
    # As on that machine, whose Python lacks pydantic before the archive is unpacked.
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(ROOT / "benchmarks" / "gpu_machine.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "packages.zip" not in done.stderr


def test_without_what_was_prepared_it_names_the_command_that_prepares(tmp_path):
    project = tmp_path / "project"
    (project / "benchmarks").mkdir(parents=True)
    shutil.copy(ROOT / "benchmarks" / "gpu_machine.py", project / "benchmarks")
    done = run_there(project, tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "./invoke bench gpu_machine" in done.stderr


@pytest.mark.slow
def test_each_part_is_followed_to_its_end_or_its_limit(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(gpu_machine, "_GRACE_S", 0.5)
    endless = "import time; print('begun', flush=True)\nwhile True: time.sleep(1)"
    tidy = f"try: exec({endless!r})\nexcept KeyboardInterrupt: raise SystemExit('so far')"
    deaf = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {endless}"
    commands = {"ended": "print('said')", "failed": "raise SystemExit(3)"}
    limited = {"interrupted": tidy, "killed": deaf}
    codes = {
        name: gpu_machine._follow(
            gpu_machine._Part(name, [sys.executable, "-c", code], 60 if name in commands else 2),
            tmp_path,
            dict(os.environ),
        )
        for name, code in {**commands, **limited}.items()
    }
    assert codes["ended"] == 0
    assert codes["failed"] == 3
    # What it knows until then is said.
    assert codes["interrupted"] == 1
    assert (tmp_path / "interrupted.txt").read_text() == "begun\nso far\n"
    assert codes["killed"] == -9
    assert (tmp_path / "ended.txt").read_text() == "said\n"
    assert (tmp_path / "killed.txt").read_text() == "begun\n"
    assert "begun" in capfd.readouterr().out


@pytest.mark.slow
def test_without_a_gpu_tests_and_benchmark_fail_and_say_why(tmp_path):
    # The packages of the tests' own environment stand in for the archive's.
    project = tmp_path / "project"
    for name in ("contract", "trainer", "launcher", "tests", "benchmarks", "configs", "docker"):
        shutil.copytree(ROOT / name, project / name)
    shutil.copy(ROOT / "pyproject.toml", project)
    folder = project / gpu_machine.FOLDER.relative_to(ROOT)
    (folder / "bases").mkdir(parents=True)
    with zipfile.ZipFile(folder / "packages.zip", "w") as packed:
        packed.writestr("stand_in.py", "")
    done = run_there(project, tmp_path, CUDA_VISIBLE_DEVICES="")
    report = tmp_path / "report"
    assert done.returncode == 1, done.stdout
    assert "Stand-in GPU" in (report / "nvidia-smi.txt").read_text()
    assert f"transformers {pinned('rtx')['transformers']}" in (report / "versions.txt").read_text()
    tests = (report / "tests.txt").read_text()
    assert "no CUDA GPU is available" in tests
    assert not re.search(r"\d+ (passed|skipped)", tests)
    assert (report / "tests.xml").exists()
    assert "no CUDA GPU is available" in (report / "benchmark.txt").read_text()


def run_there(project: Path, tmp_path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """`run`, with an nvidia-smi that shows a GPU."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho Stand-in GPU\n")
    tool.chmod(0o755)
    environment = {**os.environ, "PYTEST_ADDOPTS": "", **more}
    environment["PATH"] = f"{tool.parent}:{environment['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_machine", "run", "--out", str(tmp_path / "report")],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_setting_of_the_benchmark_is_a_recipe_and_changes_something():
    recipes = [resolve("rtx", settings=settings) for settings in SETTINGS.values()]
    assert len({recipe.model_dump_json() for recipe in recipes}) == len(recipes)


def test_the_benchmarks_rows_are_as_long_as_it_says():
    lengths = row_lengths()
    assert 205 < sum(lengths) / len(lengths) < 219
    assert max(lengths) <= resolve("rtx").max_length


def test_a_setting_that_fails_is_a_line_of_the_table():
    found = Measured(
        tokens_per_s=2000,
        step_s=1.5,
        step_peak_bytes=3 * 10**9,
        peak_allocated_bytes=3 * 10**9,
        peak_reserved_bytes=4 * 10**9,
        device_used_bytes=5 * 10**9,
        losses=[1.0],
    )
    fast = found.model_copy(update={"tokens_per_s": 5000.0, "step_peak_bytes": 6 * 10**9})
    lines = [
        Line(name="profile rtx", settings=[], measured=found, failure=None),
        Line(name="packing", settings=["packing=true"], measured=None, failure="out of memory"),
        Line(name="fast", settings=[], measured=fast, failure=None),
    ]
    cells = [[str(cell) for cell in column.cells] for column in table(lines).columns]
    assert cells[0] == ["profile rtx", "packing", "fast"]
    assert cells[1][0] == "2,000"
    assert "out of memory" in cells[1][1]
    assert [cells[2][0], cells[2][2]] == ["1.00", "2.50"]
    assert [cells[5][0], cells[5][2]] == ["1.00", "2.00"]


def test_stages_there_have_the_engines_environment_and_wait_for_no_launcher():
    variables = stage_environment()
    assert variables["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not [name for name in variables if name.startswith("AFFINEUR_")]
