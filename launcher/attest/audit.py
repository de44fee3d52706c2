"""Every input of a run, or of what `train` would run, that is not pinned by digest."""

from __future__ import annotations

import platform
from pathlib import Path

from contract.base import SMOKE, BaseIdentity
from contract.manifest import Manifest, StageRecord
from contract.recipe import Recipe
from launcher.attest.findings import Audit, Findings, is_commit
from launcher.attest.project_audit import audit_lock, audit_project
from launcher.pipeline.bases import CachedBase
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.finished_run import Run
from launcher.pipeline.gguf_files import ModelServer
from launcher.pipeline.inputs import base_of, find_data
from launcher.project import MODELS_FILE, lock_file, shown
from launcher.runtime.dependency_locks import lock_digest
from launcher.runtime.images import BuildInputs

_LOCAL = (
    "the local engine takes this machine's Python {python} and C library, which no digest pins; "
    "with --engine docker, the image brings both"
)
_AT_THE_RUN = "as it lies here now; a run's manifest records it"
_TRAIN_AGAIN = "Train it again: ./invoke train."


def inputs_of_recipe(
    recipe: Recipe, *, engine: str, ollama: str, server: ModelServer | None = None
) -> Audit:
    """What `train` would read with this recipe. Nothing is fetched.

    Files of the user's (data, a local base) are what they are: their digests are taken by the run,
    which then knows them in its manifest and in its name.

    Args:
        engine: the one that was chosen: `docker` or `local`.
        ollama: `--ollama`: a container's image is an input where one is asked for.
        server: has the base, where its name is nothing else.

    Raises:
        UserError: a dataset or a base that is not there.
    """
    findings, digests = Findings(), FileDigests()
    data, evaluation = find_data(recipe)
    for path in (data, evaluation):
        if path is not None:
            findings.pinned(shown(path), f"sha256:{digests.of(path)} {_AT_THE_RUN}")
    _audit_base(findings, recipe, digests, server)
    audit_project(findings)
    if engine == "local":
        findings.remark(_LOCAL.format(python=platform.python_version()))
    elif base_image := BuildInputs.given().base:
        findings.image(base_image, where="AFFINEUR_BASE_IMAGE")
    if ollama == "container":
        # The SDK takes a while to import.
        from launcher.serving.ollama_container import IMAGE_VARIABLE, image_reference

        reference = image_reference()
        repository = reference.partition("@")[0].rpartition(":")[0] or reference
        findings.image(
            reference,
            where="--ollama container",
            remedy=f"Name it by digest: {IMAGE_VARIABLE}={repository}@sha256:...",
        )
    return findings.audit()


def _audit_base(
    findings: Findings, recipe: Recipe, digests: FileDigests, server: ModelServer | None
) -> None:
    base = base_of(recipe, digests, server)
    name = recipe.model_to_fine_tune
    if not isinstance(base, CachedBase):
        findings.pinned(f"base {name}", f"a folder, {_AT_THE_RUN}")
    elif base.gguf is not None:
        findings.pinned(f"base {name}, {base.gguf.source}", f"sha256:{base.gguf.sha256}")
    elif base.request.kind != "hub":
        findings.pinned(f"base {name}, made here from code and lock", f"sha256:{base.key}")
    elif base.request.revision is not None and is_commit(base.request.revision):
        findings.pinned(f"base {base.request.repository}", f"commit {base.request.revision}")
    else:
        _unpinned_base(findings, base, digests)


def _unpinned_base(findings: Findings, base: CachedBase, digests: FileDigests) -> None:
    revision, repository = base.request.revision, base.request.repository
    what = f"{repository} is fetched without a commit"
    if revision is not None:
        what = f"the revision {revision} of {repository} is a branch, a tag or part of a commit"
    known = base.identity(digests)
    commit = known.revision if known is not None and known.revision else "<40 digits>"
    findings.unpinned(
        "model_revision",
        what,
        f"Pin it: --set model_revision={commit}, or an entry with `revision` in "
        f"{shown(MODELS_FILE)}.",
    )


def inputs_of_run(run: Run) -> Audit:
    """What a finished run was made from, by its manifest.

    Raises:
        UserError: another version of this project wrote the manifest.
    """
    findings, manifest = Findings(), run.manifest
    where = shown(run.folder / "manifest.json")
    _audit_recorded_base(findings, manifest.base, where)
    recorded = {
        **{f"data: {name}": digest for name, digest in manifest.data.items()},
        **{f"code of {stage}": digest for stage, digest in manifest.code.items()},
    }
    for what, digest in recorded.items():
        findings.digest(what, digest, where=where, remedy=_TRAIN_AGAIN)
    for name, digest in manifest.locks.items():
        _audit_recorded_lock(findings, name, digest, where)
    for record in manifest.stages:
        _audit_stage(findings, record, where)
    if any(record.engine == "local" for record in manifest.stages):
        findings.remark(_LOCAL.format(python=_pythons(manifest)))
    return findings.audit()


def _audit_recorded_base(findings: Findings, base: BaseIdentity, where: str) -> None:
    if base.revision is not None and not is_commit(base.revision):
        findings.unpinned(where, f"the base's revision {base.revision} is no commit", _TRAIN_AGAIN)
    if base.gguf is not None:
        what = f"base {base.source}"
        findings.digest(what, base.gguf.sha256, where=where, remedy=_TRAIN_AGAIN)
    if not base.files and base.source != SMOKE:
        findings.unpinned(where, f"no file of the base {base.source} is recorded", _TRAIN_AGAIN)
    for name, digest in base.files.items():
        findings.digest(f"base: {name}", digest, where=where, remedy=_TRAIN_AGAIN)


def _audit_recorded_lock(findings: Findings, name: str, digest: str, where: str) -> None:
    file = lock_file(Path(name).stem)
    # Of another one than lies here, the digest is all that is known.
    if file.is_file() and lock_digest(file.stem) == digest:
        audit_lock(findings, file)
    else:
        findings.digest(name, digest, where=where, remedy=_TRAIN_AGAIN)


def _audit_stage(findings: Findings, record: StageRecord, where: str) -> None:
    stage = record.stage
    if record.image is not None:
        image = record.image.digest
        findings.digest(f"image of {stage}", image, where=where, remedy=_TRAIN_AGAIN)
    elif record.engine != "local":
        findings.unpinned(
            where, f"no image is recorded for {stage}, which ran in a container", _TRAIN_AGAIN
        )
    inputs = record.decided_by.get("inputs")
    for name, digest in (inputs if isinstance(inputs, dict) else {}).items():
        findings.digest(f"{name} of {stage}", str(digest), where=where, remedy=_TRAIN_AGAIN)


def _pythons(manifest: Manifest) -> str:
    found = sorted({record.python for record in manifest.stages if record.python})
    return ", ".join(found) or "of then"
