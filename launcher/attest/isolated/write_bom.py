"""Write a bill of materials in CycloneDX 1.6 JSON, and compare it with its schema.

Run as `python -m launcher.attest.isolated.write_bom`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from launcher.attest.exchange import BomWritten, Part, WriteBom
from launcher.attest.isolated.process import answer


def write(request: WriteBom) -> BomWritten:
    """The bill of materials: of the same request the same text.

    Raises:
        ValueError: it is not what the schema asks for.
    """
    components = {part.ref: _component(part) for part in [request.subject, *request.parts]}
    subject = components.pop(request.subject.ref)
    bom = Bom(
        serial_number=UUID(request.serial_number),
        components=components.values(),
        metadata=BomMetaData(
            timestamp=datetime.fromisoformat(request.created),
            component=subject,
            tools=ToolRepository(components=[_component(request.tool)]),
        ),
    )
    components[request.subject.ref] = subject
    for ref, needed in request.depends_on.items():
        bom.register_dependency(components[ref], [components[other] for other in needed])
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    _add_cards(document, {part.ref: part for part in _all([request.subject, *request.parts])})
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise ValueError(f"not CycloneDX 1.6: {problem}")
    return BomWritten(document=text)


def _component(part: Part) -> Component:
    return Component(
        bom_ref=part.ref,
        type=ComponentType(part.kind),
        name=part.name,
        version=part.version,
        description=part.description,
        purl=PackageURL.from_string(part.purl) if part.purl else None,
        hashes=[_hash(part.sha256)] if part.sha256 else None,
        external_references=[_archives(part)] if part.archives else None,
        properties=[Property(name=name, value=value) for name, value in part.properties.items()],
        components=[_component(inner) for inner in part.parts],
    )


def _archives(part: Part) -> ExternalReference:
    # As OWASP's own writer does it for a requirements file with hashes. Which index they are taken
    # from is the reader's choice, so that their address is the package's own.
    return ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(part.purl or part.name),
        comment="one of these archives, by what the machine is",
        hashes=[_hash(digest) for digest in part.archives],
    )


def _hash(sha256: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=sha256)


def _all(parts: list[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        yield from _all(part.parts)


def _add_cards(document: dict[str, Any], parts: dict[str, Part]) -> None:
    """Add what the library has no classes for: cards of models, and what kind of data data are."""
    for component in [document["metadata"]["component"], *document["components"]]:
        part = parts[component["bom-ref"]]
        if part.kind == "data":
            component["data"] = [{"type": "dataset", "name": part.name}]
        if part.card is not None:
            component["modelCard"] = _card(part)


def _card(part: Part) -> dict[str, Any]:
    assert part.card is not None
    parameters: dict[str, Any] = {
        "task": "text-generation",
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }
    if part.card.architecture is not None:
        parameters["modelArchitecture"] = part.card.architecture
    if part.card.datasets:
        parameters["approach"] = {"type": "supervised"}
        parameters["datasets"] = [{"ref": ref} for ref in part.card.datasets]
    card: dict[str, Any] = {"modelParameters": parameters}
    if part.card.metrics:
        metrics = [metric.model_dump(exclude_none=True) for metric in part.card.metrics]
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return card


if __name__ == "__main__":
    answer(WriteBom, write)
