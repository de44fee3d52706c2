"""Compare a run's outputs with those of the run that was rebuilt, file by file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from contract import paths
from contract.events import Progress
from contract.manifest import Manifest
from contract.results.train import TrainingMetrics, TrainResult
from launcher.display import Display
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.finished_run import Run
from launcher.project import shown
from launcher.reproduce.file_differences import Differences, differences, jsonl_difference
from launcher.reproduce.record import FileComparison

_TIMES = f"{' and '.join(TrainingMetrics.times)} alone"


class _Output(NamedTuple):
    """A file that a stage wrote."""

    stage: str
    digest: str


def compare_runs(
    original: Run, rebuilt: Run, display: Display, digests: FileDigests
) -> list[FileComparison]:
    """Each file that the run made, and each that was rebuilt, in the order of their stages.

    What differs is looked into where the run's own file is at hand and is the one that it made.
    """
    made, found = _outputs(original.manifest), _outputs(rebuilt.manifest)
    names = list(dict.fromkeys([*made, *found]))
    comparisons: list[FileComparison] = []
    with display.working("compare", shown(original.folder)) as line:

        def on_doing(doing: str) -> None:
            done, total = len(comparisons), len(names)
            line.on_event(Progress(doing=doing, done=done, total=total, unit="files"))

        for name in names:
            on_doing(name)
            comparisons.append(
                _compared(name, made.get(name), found.get(name))
                or _looked_into(name, original, rebuilt, digests, on_doing)
            )
    return comparisons


def _outputs(manifest: Manifest) -> Mapping[str, _Output]:
    return {
        name: _Output(record.stage, digest)
        for record in manifest.stages
        for name, digest in record.outputs.items()
    }


def _compared(name: str, made: _Output | None, found: _Output | None) -> FileComparison | None:
    """What the digests alone say; None where two files differ."""
    if found is None:
        assert made is not None
        return FileComparison(
            file=name, stage=made.stage, state="missing", digest=made.digest, rebuilt=None
        )
    if made is None:
        where = ["the run made no such file"]
        return FileComparison(
            file=name,
            stage=found.stage,
            state="unexpected",
            digest=None,
            rebuilt=found.digest,
            where=where,
        )
    if made.digest != found.digest:
        return None
    return FileComparison(
        file=name, stage=made.stage, state="identical", digest=made.digest, rebuilt=found.digest
    )


def _looked_into(
    name: str, original: Run, rebuilt: Run, digests: FileDigests, on_doing: Callable[[str], None]
) -> FileComparison:
    """Where two files that differ do so."""
    made, found = _outputs(original.manifest)[name], _outputs(rebuilt.manifest)[name]
    there, here = original.folder / name, rebuilt.folder / name
    at_hand = there.is_file() and digests.of(there) == made.digest
    times_alone = False
    if name == str(paths.METRICS):
        place = _metrics_difference(original, rebuilt) if not at_hand else _lines(there, here)
        times_alone = place is None
        apart = Differences([place or _TIMES], [])
    elif at_hand:
        apart = differences(there, here, lambda tensor: on_doing(f"{name}: {tensor}"))
    else:
        why = "was changed since" if there.is_file() else "is not at hand"
        apart = Differences([f"the run's own file {why}"], [])
    return FileComparison(
        file=name,
        stage=made.stage,
        state="times differ" if times_alone else "differs",
        digest=made.digest,
        rebuilt=found.digest,
        where=apart.where,
        tensors=apart.tensors,
    )


def _lines(there: Path, here: Path) -> str | None:
    return jsonl_difference(there, here, but_for=TrainingMetrics.times)


def _metrics_difference(original: Run, rebuilt: Run) -> str | None:
    """Where the losses differ by the manifests alone, which have those of each line."""
    losses = [run.manifest.result(TrainResult).losses for run in (original, rebuilt)]
    if len(losses[0]) != len(losses[1]):
        return f"{len(losses[0])} lines, rebuilt {len(losses[1])}"
    for one, other in zip(*losses, strict=True):
        if one != other:
            return f"step {one.step}: loss {one.loss}, rebuilt {other.loss}"
    return None
