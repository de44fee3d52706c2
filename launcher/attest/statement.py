"""A run's manifest as an in-toto statement (v1) with the predicate of SLSA's provenance (v1).

It is built from the manifest alone, so that whoever has the manifest can build it again and
compare. What the two forms say is described at in-toto.io/Statement/v1 and slsa.dev/provenance/v1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from contract.base import BaseIdentity
from contract.manifest import Manifest
from contract.record import Record
from launcher.attest.findings import is_commit

STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Literal["https://slsa.dev/provenance/v1"] = "https://slsa.dev/provenance/v1"
# What the parameters mean, and who ran them: SECURITY.md says it. No address answers for them.
BUILD_TYPE = "urn:affineur:train:v1"
BUILDER = "urn:affineur:launcher"
# The digest of a folder's or a stage's files is that of a list of theirs, and of no file: it has an
# algorithm of its own, so that nobody takes it for one.
_LIST_DIGEST = "affineurFilesV1"


class _Part(Record):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)


class ResourceDescriptor(_Part):
    """Something that a digest names. `annotations` are for people."""

    name: str
    uri: str | None = None
    digest: dict[str, str] | None = None
    annotations: dict[str, JsonValue] | None = None


class BuildDefinition(_Part):
    """What was asked for, and what it was made from."""

    build_type: str = BUILD_TYPE
    external_parameters: dict[str, JsonValue]
    internal_parameters: dict[str, JsonValue]
    resolved_dependencies: list[ResourceDescriptor]


class Builder(_Part):
    """What ran it."""

    id: str = BUILDER
    version: dict[str, str]


class BuildMetadata(_Part):
    """Which run it was, and when."""

    invocation_id: str
    started_on: str
    finished_on: str


class RunDetails(_Part):
    """The run itself. `byproducts` are files beside the subjects, by their digests."""

    builder: Builder
    metadata: BuildMetadata
    byproducts: list[ResourceDescriptor]


class Provenance(_Part):
    """SLSA's predicate."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Statement(_Part):
    """in-toto's statement: that the subjects were made as the predicate says."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(default=STATEMENT_TYPE, alias="_type")
    subject: list[ResourceDescriptor]
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = PREDICATE_TYPE
    predicate: Provenance

    def text(self) -> str:
        """It in JSON, in the one form in which it is signed: sorted keys, no spaces."""
        return json.dumps(
            self.plain(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )

    def plain(self) -> Any:
        """It as plain values, by the names of the forms."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def statement(
    manifest: Manifest, subjects: Iterable[str], byproducts: Mapping[str, str]
) -> Statement:
    """What a manifest says of some of the run's files.

    Args:
        subjects: names of files that its stages made, relative to the run's folder.
        byproducts: names of other files, and their SHA-256.

    Raises:
        KeyError: no stage made a subject.
    """
    made = manifest.outputs
    return Statement(
        subject=[_file(name, made[name]) for name in sorted(subjects)],
        predicate=Provenance(
            build_definition=BuildDefinition(
                external_parameters={"recipe": manifest.recipe.model_dump(mode="json")},
                internal_parameters=_internal_parameters(manifest),
                resolved_dependencies=_dependencies(manifest),
            ),
            run_details=RunDetails(
                builder=Builder(
                    version={
                        "affineur": manifest.affineur_version,
                        "contract": str(manifest.contract_version),
                    }
                ),
                metadata=BuildMetadata(
                    invocation_id=manifest.key,
                    started_on=_utc(min(record.started for record in manifest.stages)),
                    finished_on=_utc(manifest.created),
                ),
                byproducts=[_file(name, digest) for name, digest in sorted(byproducts.items())],
            ),
        ),
    )


def first_difference(signed: Any, built: Any, path: str = "") -> str:
    """Where two values of JSON part, and what each says there; nothing where they are equal."""
    if isinstance(signed, dict) and isinstance(built, dict):
        pairs = [(key, signed.get(key), built.get(key)) for key in sorted({*signed, *built})]
        inner = [first_difference(a, b, f"{path}.{key}".lstrip(".")) for key, a, b in pairs]
    elif isinstance(signed, list) and isinstance(built, list) and len(signed) == len(built):
        both = enumerate(zip(signed, built, strict=True))
        inner = [first_difference(a, b, f"{path}[{index}]") for index, (a, b) in both]
    elif signed == built and type(signed) is type(built):
        return ""
    else:
        return f"{path} is {json.dumps(signed)} in the statement, {json.dumps(built)} here"
    return next(filter(None, inner), "")


def base_uri(base: BaseIdentity) -> str | None:
    """The package URL of a base that is on the Hub; None of another one."""
    if base.revision is None or not is_commit(base.revision):
        return None
    return f"pkg:huggingface/{base.source}@{base.revision}"


def _file(name: str, sha256: str) -> ResourceDescriptor:
    return ResourceDescriptor(name=name, digest={"sha256": sha256})


def _internal_parameters(manifest: Manifest) -> dict[str, JsonValue]:
    """What the run took besides: digests may depend on the machine."""
    stages: list[JsonValue] = [
        record.model_dump(mode="json", include={"stage", "key", "command", "engine", "python"})
        for record in manifest.stages
    ]
    return {
        "machine": manifest.machine.model_dump(mode="json"),
        "stages": stages,
        "versions": dict(manifest.versions),
    }


def _dependencies(manifest: Manifest) -> list[ResourceDescriptor]:
    base = manifest.base
    found = [
        ResourceDescriptor(
            name="base",
            uri=base_uri(base),
            digest={_LIST_DIGEST: base.digest},
            annotations={"source": base.source},
        )
    ]
    if base.gguf is not None:
        found.append(_file("base.gguf", base.gguf.sha256))
    found += [_file(f"base/{name}", digest) for name, digest in sorted(base.files.items())]
    found += [_file(f"data/{name}", digest) for name, digest in sorted(manifest.data.items())]
    found += [
        _file(f"docker/locks/{name}", digest) for name, digest in sorted(manifest.locks.items())
    ]
    found += [
        ResourceDescriptor(name=f"code/{stage}", digest={_LIST_DIGEST: digest})
        for stage, digest in sorted(manifest.code.items())
    ]
    return found + _images(manifest)


def _images(manifest: Manifest) -> list[ResourceDescriptor]:
    """Each image once, with the stages that ran in it."""
    stages: dict[tuple[str, str], list[JsonValue]] = {}
    for record in manifest.stages:
        if record.image is not None:
            key = (record.image.digest, record.image.builder)
            stages.setdefault(key, []).append(record.stage)
    return [
        ResourceDescriptor(
            name="image",
            digest={"sha256": digest.removeprefix("sha256:")},
            annotations={"builder": builder, "stages": names},
        )
        for (digest, builder), names in sorted(stages.items())
    ]


def _utc(time: str) -> str:
    """`2026-01-01T00:00:00Z`, the one form that in-toto takes."""
    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
