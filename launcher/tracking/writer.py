"""Writes for trackers what comes in, line by line: `python -m launcher.tracking.writer`.

It runs in an environment of its own, made from `docker/locks/tracking.lock`: these libraries are
large, and a launcher that tracks nothing has no need of them. A tracker that fails is told nothing
more, and named at the end; the others go on.
"""

from __future__ import annotations

import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from contract.events import Metrics
from contract.recipe import TrackerName
from launcher.tracking.messages import Begin, End, Failure, parse_message

# MLflow refuses a longer one.
_PARAMETER_CHARACTERS = 6000
_MLFLOW_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class Tracker(Protocol):
    """One tracker, from a training's beginning to its end."""

    def __init__(self, begin: Begin) -> None:
        """Begin a run there."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write what was measured at a step."""

    def end(self, end: End) -> None:
        """Write what is left, and how it ended."""


class TensorBoard:
    """Event files, with the recipe as text."""

    def __init__(self, begin: Begin) -> None:
        """Begin a file; those of an attempt before it would show as the same run."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = begin.folder / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = EventFileWriter(str(folder))
        self._last_step = 0
        rows = "".join(f"|{name}|{value}|\n" for name, value in begin.parameters.items())
        self._text("recipe", f"|key|value|\n|---|---|\n{rows}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.log`; it is on the disk at once, for whoever looks on."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._last_step = max(self._last_step, step)
        self._add(
            [Summary.Value(tag=name, simple_value=value) for name, value in values.items()], step
        )

    def end(self, end: End) -> None:
        """See `Tracker.end`."""
        self.log(self._last_step, end.values)
        self._text("status", end.status)
        self._writer.close()

    def _text(self, name: str, text: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING
        from tensorboard.plugins.text.metadata import create_summary_metadata

        metadata: SummaryMetadata = create_summary_metadata(display_name=name, description="")
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=shape)
        self._add([Summary.Value(tag=name, metadata=metadata, tensor=tensor)], 0)

    def _add(self, values: list[Any], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()


class MLflow:
    """A run in the experiment that is named after the model."""

    def __init__(self, begin: Begin) -> None:
        """Begin a run."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(tracking_uri=begin.mlflow_uri)
        found = self._client.get_experiment_by_name(begin.model)
        experiment = found.experiment_id if found else self._client.create_experiment(begin.model)
        run = self._client.create_run(experiment, run_name=begin.run, tags=begin.tags)
        self._run = run.info.run_id
        self._last_step = 0
        parameters = [
            Param(name, str(value)[:_PARAMETER_CHARACTERS])
            for name, value in begin.parameters.items()
        ]
        self._client.log_batch(self._run, params=parameters)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        from mlflow.entities import Metric

        self._last_step = max(self._last_step, step)
        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def end(self, end: End) -> None:
        """See `Tracker.end`."""
        if end.values:
            self.log(self._last_step, end.values)
        self._client.set_terminated(self._run, status=_MLFLOW_STATUS[end.status])


class WeightsAndBiases:
    """An offline folder, for `wandb sync`."""

    def __init__(self, begin: Begin) -> None:
        """Begin a run."""
        import wandb

        begin.folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            mode="offline",
            dir=str(begin.folder),
            project=begin.model,
            name=begin.run,
            config={**begin.parameters, **begin.tags},
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        self._run.log(dict(values), step=step)

    def end(self, end: End) -> None:
        """See `Tracker.end`."""
        self._run.summary.update(end.values)
        self._run.finish(exit_code=0 if end.status == "finished" else 1)


TRACKERS: dict[TrackerName, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


class Trackers:
    """Those that are asked for, and have not failed.

    Args:
        say: is told of each that fails.
    """

    def __init__(self, say: Callable[[Failure], object]) -> None:
        self._say = say
        self._running: dict[TrackerName, Tracker] = {}

    def begin(self, begin: Begin) -> None:
        """Begin a run with each."""
        for name in begin.trackers:
            with self._failing(name):
                self._running[name] = TRACKERS[name](begin)

    def log(self, metrics: Metrics) -> None:
        """Write what was measured at a step."""
        for name, tracker in list(self._running.items()):
            with self._failing(name):
                tracker.log(metrics.step, metrics.values)

    def end(self, end: End) -> None:
        """Write how it ended; after that, none is told anything."""
        for name, tracker in list(self._running.items()):
            with self._failing(name):
                tracker.end(end)
        self._running.clear()

    @contextmanager
    def _failing(self, name: TrackerName) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self._running.pop(name, None)
            text = str(error).strip().splitlines()
            self._say(Failure(tracker=name, text=text[0] if text else type(error).__name__))


def write(lines: TextIO, say: Callable[[Failure], object]) -> None:
    """Write what the lines say, until there are no more; their end without a word is a failure."""
    trackers = Trackers(say)
    for line in lines:
        match parse_message(line):
            case Begin() as begin:
                trackers.begin(begin)
            case Metrics() as metrics:
                trackers.log(metrics)
            case End() as end:
                trackers.end(end)
    trackers.end(End(status="failed"))


def main() -> None:
    """Read standard input; standard output is kept for failures."""
    out, sys.stdout = sys.stdout, sys.stderr
    write(sys.stdin, lambda failure: print(failure.model_dump_json(), file=out, flush=True))


if __name__ == "__main__":
    main()
