"""What two runs were made of: recipe, data, base, locks, code, machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from contract.manifest import Manifest
from contract.record import Record
from launcher.evaluate.record import Evaluation
from launcher.pipeline.key_changes import INPUT_NAMES
from launcher.runs.training_result import training_result

_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{64}")
_OF_EACH_STAGE = ("code", "engine", "image", "Python")


class Difference(Record):
    """A word of the recipe or an input that is not the same; None where a run has none."""

    name: str
    a: JsonValue
    b: JsonValue


@dataclass(frozen=True)
class InputDifference:
    """An input that is not the same, once for all stages for which it differs in the same way.

    `values` are A's and B's; None of a stage's code, whose digests tell a person nothing.
    """

    name: str
    stages: tuple[str, ...]
    values: tuple[JsonValue, JsonValue] | None


def differences(a: Mapping[str, JsonValue], b: Mapping[str, JsonValue]) -> list[Difference]:
    """What two mappings say otherwise, in the order of the first."""
    return [
        Difference(name=name, a=a.get(name), b=b.get(name))
        for name in {**a, **b}
        if a.get(name) != b.get(name)
    ]


def is_digest(value: str) -> bool:
    """Whether a value is one of which a person reads the beginning alone."""
    return _DIGEST.fullmatch(value) is not None


def changed_by_training(manifest: Manifest) -> dict[str, JsonValue]:
    """The recipe's keys that the training took otherwise, for want of memory."""
    trained = training_result(manifest)
    changed = trained.changed if trained is not None else {}
    return {f"{key}, changed while training": value for key, value in changed.items()}


def inputs_of(manifest: Manifest) -> Iterator[tuple[str, JsonValue]]:
    """All that is not in the recipe, by what a person calls it."""
    yield INPUT_NAMES["base"], manifest.base.digest
    for name, digest in manifest.data.items():
        yield INPUT_NAMES.get(name, name), digest
    for record in manifest.stages:
        read = record.decided_by.get("inputs")
        for name, value in read.items() if isinstance(read, dict) else ():
            yield INPUT_NAMES.get(name, name), value
    yield from manifest.locks.items()
    yield from manifest.versions.items()
    for stage, digest in manifest.code.items():
        yield f"code of {stage}", digest
    for record in manifest.stages:
        yield f"engine of {record.stage}", record.engine
        yield f"image of {record.stage}", record.image.digest if record.image else None
        yield f"Python of {record.stage}", record.python
    yield "Affineur", manifest.affineur_version
    yield "platform", manifest.machine.platform
    yield "processor", manifest.machine.processor
    yield "cores", manifest.machine.cores


def evaluated_otherwise(a: Evaluation | None, b: Evaluation | None) -> list[Difference]:
    """Who answered and how much was asked, where both were evaluated."""
    if a is None or b is None:
        return []
    said: list[dict[str, JsonValue]] = [
        {"server of the evaluation": found.model.by, "rows of each evaluation set": found.limit}
        for found in (a, b)
    ]
    return differences(*said)


def by_stages(inputs: Sequence[Difference]) -> list[InputDifference]:
    """One for what differs in the same way in several stages, in the order of the first."""
    grouped: dict[tuple[str, str], InputDifference] = {}
    for one in inputs:
        name, _, stage = one.name.partition(" of ")
        values: tuple[JsonValue, JsonValue] | None = (one.a, one.b)
        if name not in _OF_EACH_STAGE:
            name, stage = one.name, ""
        elif name == "code":
            values = None
        key = name, repr(values)
        stages = grouped[key].stages if key in grouped else ()
        grouped[key] = InputDifference(name, (*stages, stage) if stage else (), values)
    return list(grouped.values())
