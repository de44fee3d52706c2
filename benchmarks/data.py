"""Memory and speed of `prepare` and of the check for leaks, over a dataset that grows.

`./invoke bench data`: 10 MB, 100 MB and 1 GB of JSONL, in rows of about 650 bytes from a seed, and
the smoke base's tokenizer. Other sizes in MB: `python -m benchmarks.data 10 50`. What is prepared
takes eight times the data's size, in a temporary folder (TMPDIR) that is removed at the end.

Each runs in a process of its own. Memory is its largest resident set, and the same less what it had
before it began, with its libraries loaded. Time is the processor's, of all its cores together, so
that other work on the machine counts less. What is printed last are ratios within this run: the
largest size's rows a second by the smallest's, and by how much memory grew for each further row.
"""

from __future__ import annotations

import io
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel

from contract import paths
from contract.paths import StagePaths
from launcher.configuration import resolve

_SIZES_MB = (10, 100, 1000)
_SEED = 14
_SYLLABLES = [one + two for one in "bcdfglmnprstv" for two in ("a", "e", "é", "i", "o", "u")]
# What is asked of the training rows: half of them stand in it.
_ASKED = 1000


class Measured(BaseModel):
    """What a process found out about itself.

    Attributes:
        rows: that it went through.
        seconds: of the processor.
        before_mb: resident before it began.
        peak_mb: the most that was resident.
    """

    rows: int
    seconds: float
    before_mb: float
    peak_mb: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    @property
    def own_mb(self) -> float:
        """What the work itself took."""
        return self.peak_mb - self.before_mb


def rows(seed: int = _SEED) -> Iterator[dict[str, str]]:
    """Rows without an end: a question of two lines and an answer, of 20,000 words; one in a hundred
    stands twice.
    """
    drawn = random.Random(seed)
    words = ["".join(drawn.choices(_SYLLABLES, k=drawn.randint(1, 4))) for _ in range(20_000)]

    def text(number: int) -> str:
        return " ".join(drawn.choices(words, k=number))

    while True:
        row = {"instruction": f"{text(20)} ?\n{text(25)}", "output": f"{text(40)}."}
        yield from [row] * (2 if drawn.random() < 0.01 else 1)


def write(path: Path, size_bytes: int) -> int:
    """Write so much JSONL; how many rows that is."""
    written = 0
    with path.open("wb") as file:
        for row in rows():
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            written += 1
            if file.tell() >= size_bytes:
                break
    return written


def write_base(folder: Path) -> None:
    """The smoke base before its training."""
    from trainer.base.smoke import new_model, write_model, write_tokenizer

    folder.mkdir()
    write_tokenizer(folder)
    write_model(new_model(), folder)


def prepare(folder: Path) -> Measured:
    """The stage `prepare` in this process, on `data.jsonl`."""
    from trainer.entrypoint import Reporter
    from trainer.loading import load_tokenizer
    from trainer.prepare.stage import prepare as stage

    # What the first use of a tokenizer loads is not the data's.
    load_tokenizer(folder / "base")
    stage_paths = StagePaths(run=folder / "run", data=folder / "data.jsonl", base=folder / "base")
    return measured(folder, lambda: stage(stage_paths, Reporter(io.StringIO())))


def leaks(folder: Path) -> Measured:
    """The check for leaks in this process: rows that were trained, and rows of another seed."""
    from itertools import islice

    from trainer.questions.leakage import QuestionText, find_leaks
    from trainer.questions.stage import TrainedRows

    trained = TrainedRows(folder / "run" / paths.PREPARED_TRAIN)
    asked = [*islice(trained, _ASKED // 2)]
    others = islice(rows(_SEED + 1), _ASKED // 2)
    asked += [QuestionText(f"e:{n}", row["instruction"]) for n, row in enumerate(others)]
    found = []
    figures = measured(folder, lambda: found.extend(find_leaks(asked, trained)))
    if len(found) != _ASKED // 2:
        raise RuntimeError(f"{len(found)} leaks were found instead of {_ASKED // 2}")
    return figures


def measured(folder: Path, work: Callable[[], None]) -> Measured:
    """Run it, and say what that took."""
    before_mb, started_s = peak_mb(), time.process_time()
    work()
    return Measured(
        rows=int((folder / "rows").read_text()),
        seconds=time.process_time() - started_s,
        before_mb=before_mb,
        peak_mb=peak_mb(),
    )


def peak_mb() -> float:
    """This process's largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main(sizes_mb: list[int]) -> None:
    """Make each dataset, run both on it, print a line for each and the ratios."""
    work = ("prepare", "leaks")
    found: dict[str, list[Measured]] = {name: [] for name in work}
    print(f"{'':>8} {'':>9}   {'prepare':^30}   {'check for leaks':^30}")
    column = f"{'rows/s':>8} {'memory':>9} {'in all':>11}"
    print(f"{'data':>8} {'rows':>9}   {column}   {column}")
    for size_mb in sizes_mb:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            _child("base", folder)
            written = write(folder / "data.jsonl", size_mb * 1_000_000)
            (folder / "rows").write_text(str(written))
            (folder / "run").mkdir()
            resolve("smoke").write(folder / "run" / paths.RECIPE)
            for name in work:
                found[name].append(Measured.model_validate_json(_child(name, folder)))
        figures = "   ".join(
            f"{one.rate:>8,.0f} {one.own_mb:>6,.0f} MB {one.peak_mb:>8,.0f} MB"
            for one in (found[name][-1] for name in work)
        )
        print(f"{size_mb:>5} MB {written:>9,}   {figures}", flush=True)
    for name in work:
        first, last = found[name][0], found[name][-1]
        print(
            f"{name}, {sizes_mb[-1]} MB / {sizes_mb[0]} MB: rows/s {last.rate / first.rate:.2f}, "
            f"{_growth_bytes(first, last):.0f} bytes for each further row"
        )


def _growth_bytes(first: Measured, last: Measured) -> float:
    more = last.rows - first.rows
    return (last.own_mb - first.own_mb) * 1e6 / more if more else 0.0


def _child(name: str, folder: Path) -> str:
    command = [sys.executable, "-m", "benchmarks.data", name, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True)
    return done.stdout.decode().splitlines()[-1] if done.stdout else ""


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["base", folder]:
            write_base(Path(folder) / "base")
        case ["prepare", folder]:
            print(prepare(Path(folder)).model_dump_json())
        case ["leaks", folder]:
            print(leaks(Path(folder)).model_dump_json())
        case sizes:
            main([int(size) for size in sizes] or list(_SIZES_MB))
