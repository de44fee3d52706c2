"""A run's bill of materials: what its model is made of, by digest, as a request to write it.

All of it is from the manifest and the locks that the manifest names, so that a run has one bill of
materials, whenever and wherever it is written.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from contract import paths
from contract.atomic_write import atomic_write
from contract.digest import digest_of_file
from contract.errors import UserError
from contract.manifest import Manifest
from contract.recipe import Recipe
from contract.results.preflight import PreflightResult
from contract.results.reference import ReferenceResult
from contract.results.train import BaseAndTuned, TrainResult
from launcher.attest.environment import ask
from launcher.attest.exchange import BomWritten, Metric, ModelCard, Part, WriteBom
from launcher.attest.requirements import requirements
from launcher.attest.statement import base_uri
from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.project import lock_file, shown
from launcher.runtime.dependency_locks import lock_digest

_MODEL = "model"
_BASE = "base"
# The lock of the one package that carries llama.cpp's sources.
_LLAMA_CPP = "llama-cpp.lock"
_DATASETS = {
    "data": "what the model was trained on",
    "evaluation": "what it was measured on, and not trained on",
}


def write_bom(run: Run, target: Path, display: Display) -> None:
    """Write a run's bill of materials to a file: CycloneDX 1.6, JSON, as its schema asks for it.

    Raises:
        UserError: a lock is no longer the one that the run was made with.
    """
    written = ask("write_bom", bill_of_materials(run), BomWritten, display)
    atomic_write(target, written.document)


def bill_of_materials(run: Run) -> WriteBom:
    """The parts of a run's model, and what it stands on.

    Raises:
        UserError: a lock is no longer the one that the run was made with.
    """
    manifest = run.manifest
    digest = digest_of_file(run.folder / paths.MANIFEST)
    parts = [
        _base(manifest),
        *_datasets(manifest),
        *_images(manifest),
        *_libraries(manifest),
    ]
    return WriteBom(
        serial_number=str(uuid.uuid5(uuid.NAMESPACE_OID, f"sha256:{digest}")),
        created=manifest.created,
        subject=_model(run, digest),
        tool=Part(
            ref="affineur",
            kind="application",
            name="affineur",
            version=manifest.affineur_version,
            properties={f"affineur:code:{name}": code for name, code in manifest.code.items()},
        ),
        parts=parts,
        depends_on={_MODEL: sorted(part.ref for part in parts)},
    )


def _model(run: Run, manifest_digest: str) -> Part:
    manifest = run.manifest
    return Part(
        ref=_MODEL,
        kind="machine-learning-model",
        name=manifest.recipe.output_model_name,
        version=manifest.key,
        description=f"{manifest.base.source}, fine-tuned by LoRA",
        properties={"affineur:manifest:sha256": manifest_digest, **_parameters(manifest.recipe)},
        parts=list(_files(manifest, _outputs(run))),
        card=ModelCard(
            architecture=_architecture(manifest),
            datasets=[f"data:{name}" for name in sorted(manifest.data)],
            metrics=list(_metrics(manifest)),
        ),
    )


def _parameters(recipe: Recipe) -> dict[str, str]:
    """The recipe, key by key: what the training was told."""
    plain = recipe.model_dump(mode="json", exclude_none=True)
    return {f"affineur:recipe:{name}": str(value) for name, value in plain.items()}


def _outputs(run: Run) -> list[str]:
    made = run.outputs_below(paths.GGUF, paths.ADAPTER, paths.MODELFILE, paths.SERVING)
    return [name for name in made if name != str(paths.READ_BACK)]


def _files(manifest: Manifest, names: Iterable[str]) -> Iterator[Part]:
    made = manifest.outputs
    for name in names:
        yield Part(ref=f"{_MODEL}:{name}", kind="file", name=name, sha256=made[name])


def _base(manifest: Manifest) -> Part:
    base = manifest.base
    files = [
        Part(ref=f"{_BASE}:{name}", kind="file", name=name, sha256=digest)
        for name, digest in sorted(base.files.items())
    ]
    return Part(
        ref=_BASE,
        kind="machine-learning-model",
        name=base.source,
        version=base.revision or base.digest,
        description="the model that was fine-tuned",
        purl=base_uri(base),
        sha256=base.gguf.sha256 if base.gguf is not None else None,
        parts=files,
        card=ModelCard(architecture=_architecture(manifest)),
    )


def _datasets(manifest: Manifest) -> Iterator[Part]:
    named = {"data": manifest.recipe.dataset_path, "evaluation": manifest.recipe.evaluation_path}
    for name, digest in sorted(manifest.data.items()):
        # As the recipe among the model's properties has it, without its folder.
        file = Path(named.get(name) or name).name
        yield Part(
            ref=f"data:{name}",
            kind="data",
            name=file,
            version=digest,
            description=_DATASETS.get(name),
            sha256=digest,
        )


def _images(manifest: Manifest) -> Iterator[Part]:
    images = {record.image.digest for record in manifest.stages if record.image is not None}
    for digest in sorted(images):
        sha256 = digest.removeprefix("sha256:")
        yield Part(
            ref=f"image:{sha256}",
            kind="container",
            name="affineur/trainer",
            version=digest,
            sha256=sha256,
        )


def _libraries(manifest: Manifest) -> Iterator[Part]:
    """Each package of each lock, once."""
    seen = set()
    for name, digest in sorted(manifest.locks.items()):
        for entry in requirements(_lock_text(name, digest)):
            purl = f"pkg:pypi/{str(entry.name).lower().replace('_', '-')}@{entry.version}"
            if entry.name is None or purl in seen:
                continue
            seen.add(purl)
            what = "carries the sources of llama.cpp, its converters and its tools"
            yield Part(
                ref=purl,
                kind="library",
                name=entry.name,
                version=entry.version,
                description=what if name == _LLAMA_CPP else None,
                purl=purl,
                archives=sorted(entry.sha256),
            )


def _lock_text(name: str, digest: str) -> str:
    file = lock_file(Path(name).stem)
    if not file.is_file() or lock_digest(file.stem) != digest:
        raise UserError.one(
            shown(file),
            "is not the lock that this run was made with, so that its packages are not known here",
            "Take it from the commit that made the run, or train again: ./invoke train.",
        )
    return file.read_text(encoding="utf-8")


def _architecture(manifest: Manifest) -> str | None:
    with suppress(LookupError):
        return manifest.result(PreflightResult).architecture
    return None


def _metrics(manifest: Manifest) -> Iterator[Metric]:
    """What the run measured, of the base and of the tuned model."""
    with suppress(LookupError):
        held_out = manifest.result(TrainResult).held_out
        of_rows = f"{held_out.held_out_rows} held-out rows"
        yield from _both("loss, nats per token", held_out.loss, of_rows)
        answered = f"{held_out.answered_rows} held-out rows"
        yield from _both("exact match, share", held_out.exact_match, answered)
    with suppress(LookupError):
        reference = manifest.result(ReferenceResult)
        compared = {"merged model, from the trained one": reference.merge}
        compared |= {
            f"{kind} file, from the merged model": agreement
            for kind, agreement in sorted(reference.agreements.items())
        }
        for what, agreement in compared.items():
            on = f"{what}; {agreement.tokens} tokens"
            yield Metric(type="mean KL, nats per token", value=f"{agreement.mean_kl:g}", slice=on)
            yield Metric(type="same top token, share", value=f"{agreement.same_top:g}", slice=on)


def _both(kind: str, measured: BaseAndTuned | None, on: str) -> Iterator[Metric]:
    if measured is not None:
        yield Metric(type=kind, value=f"{measured.tuned:g}", slice=f"tuned model; {on}")
        yield Metric(type=kind, value=f"{measured.base:g}", slice=f"base; {on}")
