"""A run as an OCI artifact: what registries keep, ORAS pulls, and Docker's model tools run.

An image layout in a folder (https://github.com/opencontainers/image-spec, `image-layout.md`): a
manifest whose configuration is Docker's of a model, and a layer for each file
(https://github.com/docker/model-spec). Each layer has its file's name as its title, so that ORAS
pulls the folder that `ollama create` takes. The same run is the same artifact, to the byte.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from contract.errors import UserError
from contract.gguf_header import GgufHeader
from contract.record import Record
from launcher.display import Display, StageLine
from launcher.pipeline.finished_run import Run
from launcher.pipeline.package import check_space, copy, package_name, packaged_files
from launcher.project import PACKAGES, VERSION, shown

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.docker.ai.model.config.v0.1+json"
_GGUF, _LORA = "application/vnd.docker.ai.gguf.v3", "application/vnd.docker.ai.gguf.v3.lora"
_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".safetensors": "application/vnd.docker.ai.safetensors",
}
_ANNOTATIONS = "org.opencontainers.image"


class Descriptor(Record):
    """What the manifest says of a blob, by the specification's names."""

    mediaType: str
    digest: str
    size: int
    annotations: dict[str, str] = Field(default_factory=dict)

    def said(self) -> dict[str, Any]:
        """As JSON has it: without annotations where there are none."""
        return self.model_dump(exclude_defaults=True)


def default_layout(run: Run) -> Path:
    """`data/packages/<model>-<run>.oci/`."""
    return PACKAGES / f"{package_name(run)}.oci"


def write_layout(run: Run, target: Path, display: Display) -> str:
    """Write the run's artifact as an image layout, and return its manifest's digest.

    Raises:
        UserError: a file is not what the run made, or the disk has no room.
    """
    files = packaged_files(run)
    total_bytes = check_space(run, files, target)
    # Beside it, and moved when it is whole.
    begun = target.with_name(f".{target.name}.part")
    shutil.rmtree(begun, ignore_errors=True)
    try:
        with display.working("package", shown(target)) as line:
            digest = _write(run, files, begun, line, total_bytes)
        shutil.rmtree(target, ignore_errors=True)
        begun.rename(target)
    except BaseException:
        shutil.rmtree(begun, ignore_errors=True)
        raise
    return digest


def _write(run: Run, files: list[str], folder: Path, line: StageLine, total_bytes: int) -> str:
    (folder / "blobs" / "sha256").mkdir(parents=True)
    layers, done_bytes = [], 0
    for name in files:
        layer, done_bytes = _layer(run, name, folder, line, done_bytes, total_bytes)
        layers.append(layer)
    config = _blob(folder, _config(run, layers), _CONFIG_TYPE)
    recipe = run.recipe
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.said(),
        "layers": [layer.said() for layer in layers],
        "annotations": {
            f"{_ANNOTATIONS}.title": recipe.output_model_name,
            f"{_ANNOTATIONS}.version": run.name,
            f"{_ANNOTATIONS}.created": run.manifest.created,
            f"{_ANNOTATIONS}.base.name": recipe.model_to_fine_tune,
            f"{_ANNOTATIONS}.description": f"fine-tuned by Affineur {VERSION}",
        },
    }
    whole = _blob(folder, manifest, MANIFEST_TYPE)
    named = whole.model_copy(update={"annotations": {f"{_ANNOTATIONS}.ref.name": run.name}})
    _write_json(folder / "index.json", {"schemaVersion": 2, "manifests": [named.said()]})
    _write_json(folder / "oci-layout", {"imageLayoutVersion": "1.0.0"})
    return whole.digest


def _layer(
    run: Run, name: str, folder: Path, line: StageLine, done_bytes: int, total_bytes: int
) -> tuple[Descriptor, int]:
    """Copy a file, whose digest is that of what was copied."""
    partial, digested = folder / "blob", hashlib.sha256()
    with (run.folder / name).open("rb") as source, partial.open("wb") as blob:
        done_bytes = copy(source, blob, line, done_bytes, total_bytes, digested.update)
    digest = digested.hexdigest()
    size = partial.stat().st_size
    partial.rename(folder / "blobs" / "sha256" / digest)
    annotations = {f"{_ANNOTATIONS}.title": name}
    kind = _media_type(run, name)
    return Descriptor(
        mediaType=kind, digest=f"sha256:{digest}", size=size, annotations=annotations
    ), done_bytes


def _media_type(run: Run, name: str) -> str:
    if name == run.serving.gguf:
        return _GGUF
    if name == run.serving.adapter:
        return _LORA
    return _TYPES.get(Path(name).suffix, "text/plain")


def _config(run: Run, layers: list[Descriptor]) -> dict[str, Any]:
    """What Docker's model tools read of a model before its weights."""
    header = GgufHeader.read(run.folder / run.serving.gguf)
    models = [layer for layer in layers if layer.mediaType in (_GGUF, _LORA)]
    return {
        "descriptor": {"createdAt": run.manifest.created},
        "config": {
            "format": "gguf",
            "format_version": "3",
            "gguf": {
                "architecture": header.architecture,
                "parameter_count": str(header.parameters),
                "quantization": run.recipe.quantizations[0].upper(),
            },
            "size": str(sum(layer.size for layer in models)),
        },
        "files": [{"diffID": layer.digest, "type": layer.mediaType} for layer in layers],
    }


def _blob(folder: Path, value: Mapping[str, Any], kind: str) -> Descriptor:
    content = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(content)
    return Descriptor(mediaType=kind, digest=f"sha256:{digest}", size=len(content))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


class Layout:
    """An image layout with one manifest, as it lies in a folder.

    Raises:
        UserError: it is none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            index = json.loads((folder / "index.json").read_bytes())
            self.digest: str = index["manifests"][0]["digest"]
            self.manifest: bytes = self.blob(self.digest).read_bytes()
            read = json.loads(self.manifest)
            self.blobs = [
                Descriptor.model_validate(one) for one in (*read["layers"], read["config"])
            ]
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            raise UserError.one(
                shown(folder), "is no OCI artifact of a run", "Write it: ./invoke package --oci."
            ) from None

    def blob(self, digest: str) -> Path:
        """Where a blob lies."""
        return self._folder / "blobs" / digest.replace(":", "/", 1)
