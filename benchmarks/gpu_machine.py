"""Tests and benchmarks on a machine that has an NVIDIA GPU and Python, and no network.

    ./invoke bench gpu_machine                                here: .gpu_machine/
    python3 -m benchmarks.gpu_machine run --out gpu-report    there: under ten minutes

The first command puts into one folder what such a machine lacks: packages of the locked versions in
one archive, and the smoke base. Copy the project with that folder (about 30 MB) to the machine, and
run the second command in the project's folder with the Python that has torch. It installs nothing:
the packages are unpacked into a temporary folder that goes before the machine's own.

torch, CUDA and triton are the machine's: 3 GB that are not carried. The report says which they are.
This module needs nothing but the standard library, until the packages are there.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".gpu_machine"
_ARCHIVE, _BASES = "packages.zip", "bases"
# The trainer's own: their versions decide results. And what they and the launcher import that a
# machine for deep learning does not have by itself. All else is taken as it is found there.
PACKAGES = {
    "rtx": (
        *("accelerate", "bitsandbytes", "datasets", "peft", "tokenizers", "transformers", "trl"),
        *("annotated-types", "dill", "multiprocess", "pydantic", "pydantic-core"),
        *("typing-extensions", "typing-inspection"),
    ),
    "host": ("ruamel-yaml",),
}
_PLATFORM = "x86_64-manylinux_2_28"
# The report names them; of each, the one that is imported.
_NAMED = ("torch", "triton", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "numpy")
_TESTS_S, _BENCHMARK_S = 240.0, 220.0
# Between the end that is asked for and the end that is forced.
_GRACE_S = 10.0
# Each file of tests has a process, and starts more: none may take all of the cores.
_SIDE_BY_SIDE, _THREADS = 6, 2


def requirements(lock: str, packages: Sequence[str]) -> str:
    """The entries of these packages in a lock, with their hashes.

    Raises:
        LookupError: the lock has no such package.
    """
    text = (ROOT / "docker" / "locks" / f"{lock}.lock").read_text(encoding="utf-8")
    entries = {
        entry.partition("==")[0]: entry
        for entry in re.split(r"\n(?=[a-zA-Z0-9])", re.sub(r"(?m)^ *#.*\n", "", text))
    }
    return "".join(entries[name].rstrip() + "\n" for name in packages)


def is_carried(file: Path, cuda: str) -> bool:
    """Whether a file of an installed package goes into the archive.

    bitsandbytes brings a library for each CUDA; one is used there, and it is looked for by name.
    """
    if "__pycache__" in file.parts or file.parts[0] == "bin":
        return False
    library = re.fullmatch(r"libbitsandbytes_(?!cpu)(\w+)\.so", file.name)
    return library is None or library[1] == f"cuda{cuda.replace('.', '')}"


def archive(site: Path, target: Path, *, cuda: str) -> None:
    """Zip a folder of packages, without what is not needed there."""
    files = sorted(path.relative_to(site) for path in site.rglob("*") if path.is_file())
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for file in files:
            if is_carried(file, cuda):
                packed.write(site / file, file)


def prepare(*, python: str, cuda: str) -> None:
    """Write `.gpu_machine/`, in the tests' environment, with a network.

    Args:
        python: the version of the machine's Python, such as 3.12.
        cuda: that of the CUDA that its torch was built with, such as 13.0.
    """
    from launcher.runtime.dependency_locks import uv
    from tests.gpu import bases

    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch) / "site"
        for lock, packages in PACKAGES.items():
            wanted = Path(scratch) / f"{lock}.txt"
            wanted.write_text(requirements(lock, packages))
            command = [uv(), "pip", "install", "--quiet", "--target", str(site), "--no-deps"]
            command += ["--require-hashes", "--no-build", "--python", sys.executable]
            command += ["--python-version", python, "--python-platform", _PLATFORM]
            subprocess.run([*command, "--requirement", str(wanted)], check=True)
        archive(site, FOLDER / _ARCHIVE, cuda=cuda)
    print("making the smoke base, where it is not there already (a minute)", flush=True)
    bases.smoke(FOLDER / _BASES)
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    print(
        f"{FOLDER.relative_to(ROOT)}/: {size / 1e6:.0f} MB, for Python {python} and CUDA {cuda}.\n"
        "Copy it with the project, and run there, in the project's folder:\n"
        "  python3 -m benchmarks.gpu_machine run --out gpu-report"
    )


@dataclass(frozen=True)
class _Part:
    """One command of the report: the name of its output, its seconds at most, its environment."""

    name: str
    command: list[str]
    limit_s: float
    more: dict[str, str] = field(default_factory=dict)


def run(out: Path, *, tests_s: float, benchmark_s: float) -> int:
    """Test and measure with what `prepare` wrote, and return the first code that is not 0."""
    if not (FOLDER / _ARCHIVE).exists():
        where = FOLDER.relative_to(ROOT)
        print(f"{where}: does not exist. Run ./invoke bench gpu_machine first.", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        site, bases = Path(scratch) / "site", Path(scratch) / _BASES
        with zipfile.ZipFile(FOLDER / _ARCHIVE) as packed:
            packed.extractall(site)
        # The machine's copy may be read-only, and the random bases are 3 GB.
        shutil.copytree(FOLDER / _BASES, bases)
        environment = {
            **os.environ,
            "PYTHONPATH": str(site),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            # Whatever else is installed there has no say in these tests.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "AFFINEUR_GPU_BASES": str(bases),
        }
        codes = [
            _follow(part, out, environment)
            for part in _parts(out, tests_s=tests_s, benchmark_s=benchmark_s)
        ]
    return next((code for code in codes if code), 0)


def _parts(out: Path, *, tests_s: float, benchmark_s: float) -> list[_Part]:
    tests = ["-m", "pytest", "tests/gpu", "-v", "--durations=0", "-p", "no:cacheprovider"]
    tests += [f"--junit-xml={out / 'tests.xml'}"]
    if importlib.util.find_spec("xdist"):
        tests += ["-p", "xdist.plugin", "-n", str(_SIDE_BY_SIDE), "--dist", "loadfile"]
    figures = ["--out", str(out / "benchmark.json"), "--in-all-s", str(benchmark_s - 2 * _GRACE_S)]
    named = ", ".join(f"'{name}'" for name in _NAMED)
    versions = (
        "import platform, torch\n"
        "from importlib.metadata import version\n"
        "print('python', platform.python_version(), 'cuda', torch.version.cuda)\n"
        f"for name in ({named}): print(name, version(name))\n"
    )
    return [
        _Part("nvidia-smi", ["nvidia-smi"], 30),
        _Part("versions", [sys.executable, "-c", versions], 120),
        _Part("tests", [sys.executable, *tests], tests_s, {"OMP_NUM_THREADS": str(_THREADS)}),
        _Part("benchmark", [sys.executable, "-m", "benchmarks.gpu", *figures], benchmark_s),
    ]


def _follow(part: _Part, out: Path, environment: dict[str, str]) -> int:
    """Run a command to its end or its limit, its output shown and kept."""
    print(f"== {part.name}", flush=True)
    started_s = time.monotonic()
    with (out / f"{part.name}.txt").open("w", encoding="utf-8") as kept:
        try:
            process = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env={**environment, **part.more},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # So that what it started ends with it.
                start_new_session=True,
                # Where this runs in the background, an interrupt may be ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        except FileNotFoundError:
            print(f"{part.command[0]}: is not installed", flush=True)
            return 1
        # An interrupted pytest says what it found until then.
        ends = [
            threading.Timer(part.limit_s, os.killpg, (process.pid, signal.SIGINT)),
            threading.Timer(part.limit_s + _GRACE_S, os.killpg, (process.pid, signal.SIGKILL)),
        ]
        for end in ends:
            end.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                kept.write(line)
            code = process.wait()
        finally:
            for end in ends:
                end.cancel()
    print(f"== {part.name}: exit code {code}, {time.monotonic() - started_s:.0f} s", flush=True)
    return code


def main() -> None:
    """`prepare`, which is what no word means, or `run`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words = parser.add_subparsers(dest="word")
    first = words.add_parser("prepare", help="write .gpu_machine/")
    first.add_argument("--python", default="3.12", help="the machine's version of Python")
    first.add_argument("--cuda", default="13.0", help="the CUDA of the machine's torch")
    second = words.add_parser("run", help="test and measure on the machine")
    second.add_argument("--out", type=Path, required=True, help="folder for the report")
    second.add_argument("--tests-s", type=float, default=_TESTS_S)
    second.add_argument("--benchmark-s", type=float, default=_BENCHMARK_S)
    given = parser.parse_args(sys.argv[1:] or ["prepare"])
    if given.word == "run":
        sys.exit(run(given.out, tests_s=given.tests_s, benchmark_s=given.benchmark_s))
    prepare(python=given.python, cuda=given.cuda)


if __name__ == "__main__":
    main()
