"""Find what a run was made from, and refuse what is not the same: code, locks, data, base."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from contract.base import BaseIdentity
from contract.data_rows import DataRows
from contract.digest import digest_of_value
from contract.errors import Problem, UserError
from contract.manifest import CONTRACT_VERSION, Manifest
from contract.results.prepare import PrepareResult
from launcher.display import Display
from launcher.pipeline.bases import CachedBase, LocalBase, find_base, find_recorded
from launcher.pipeline.code_digest import code_digest
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.gguf_files import ModelServer
from launcher.pipeline.inputs import RunInputs, file_input, find_dataset, found_base, inputs_of
from launcher.pipeline.key_changes import key_changes
from launcher.pipeline.training import training_key_parts
from launcher.project import LOCKS, VERSION, shown
from launcher.runtime.engine import Engine

# Below the folder of a reproduction: data under the name that it had.
_INPUTS = Path("inputs")
_MOST_NAMED = 5
_SHOWN_DIGITS = 12


@dataclass(frozen=True)
class GivenPlaces:
    """Where a person says that inputs lie which are no longer where the run read them."""

    data: str = ""
    evaluation: str = ""
    base: str = ""


@dataclass(frozen=True)
class _DataFile:
    """A data file of a run: the key of the recipe that names it, and the flag for another place."""

    name: str
    key: str
    flag: str
    given: str
    recorded: str

    def find(self, manifest: Manifest, digests: FileDigests) -> Path | Problem:
        """The file that the run read, or why it is not to be had."""
        elsewhere = f"Name the file that the run read: {self.flag} FILE."
        try:
            path = find_dataset(self.given or self.recorded, self.flag if self.given else self.key)
        except UserError as error:
            first = error.problems[0]
            return Problem(where=first.where, what=first.what, remedy=elsewhere)
        wanted, found = manifest.data[self.name], digests.of(path)
        if found == wanted:
            return path
        what = (
            f"is not the file that the run read: {self._first_row(manifest, path)} "
            f"(sha256 {_short(wanted)} there, {_short(found)} here)"
        )
        return Problem(where=shown(path), what=what, remedy=elsewhere)

    def _first_row(self, manifest: Manifest, path: Path) -> str:
        rows = _rows(manifest).get(self.name)
        return rows.first_difference(path) if rows else "the run kept nothing of its rows"


def other_project(manifest: Manifest) -> list[str]:
    """What of this project is not what made the run: code of stages, locks, the contract."""
    stages = [name for name, digest in manifest.code.items() if _code(name) != digest]
    here = {lock.name: lock for lock in LOCKS.glob("*.lock")}
    digests = FileDigests()
    locks = [
        name
        for name, digest in manifest.locks.items()
        if name not in here or digests.of(here[name]) != digest
    ]
    found = [f"the code of {', '.join(stages)}"] if stages else []
    found += [f"docker/locks/{name}" for name in locks]
    if manifest.contract_version != CONTRACT_VERSION:
        found.append(f"the contract's version ({manifest.contract_version}, {CONTRACT_VERSION})")
    return found


def refuse_other_project(manifest: Manifest, other: list[str]) -> None:
    """Refuse to rebuild a run by another project than made it.

    Raises:
        UserError: naming what differs.
    """
    if other:
        raise UserError.one(
            "",
            f"{'; '.join(other)}: not what made the run (version {manifest.affineur_version} "
            f"there, {VERSION} here)",
            "Use a clone at the commit that made it; or rebuild with this one's code and locks, "
            "of which nothing is promised: --with-this-code.",
        )


def find_files(manifest: Manifest, given: GivenPlaces, digests: FileDigests) -> dict[str, Path]:
    """The dataset as `data`, and the evaluation set as `evaluation` where the run had one.

    Raises:
        UserError: naming each that is not there or is another one, and the first row that differs.
    """
    found: dict[str, Path] = {}
    problems = []
    for file in _data_files(manifest, given):
        at = file.find(manifest, digests)
        if isinstance(at, Problem):
            problems.append(at)
        else:
            found[file.name] = at
    if problems:
        raise UserError(problems)
    return found


def find_inputs(
    manifest: Manifest,
    given: GivenPlaces,
    *,
    engine: Engine,
    display: Display,
    digests: FileDigests,
    server: ModelServer | None,
    keys_too: bool,
) -> RunInputs:
    """All inputs, each the one that the run had; the base is fetched or made where it is not here.

    Args:
        server: has the base, where its name is nothing else.
        keys_too: see that nothing else is another: all but code and locks that are asked for.

    Raises:
        UserError: one of them cannot be had, or is another one.
    """
    recipe = manifest.recipe
    files = find_files(manifest, given, digests)
    base = _base(manifest, given, digests, server)
    identity = found_base(base, recipe, engine=engine, display=display, digests=digests)
    _check_base(manifest.base, identity)
    inputs = inputs_of(
        recipe, manifest.base, model=base.model, files=files, display=display, digests=digests
    )
    if keys_too:
        _check_keys(manifest, inputs)
    return inputs


def under_their_names(
    inputs: RunInputs, manifest: Manifest, folder: Path, digests: FileDigests
) -> RunInputs:
    """The inputs, with a copy of each data file that has another name than it had: what `prepare`
    writes names rows after their file.

    Raises:
        UserError: a file was changed while it was copied.
    """
    by_name = dict(inputs.by_name)
    for name, rows in _rows(manifest).items():
        locate = by_name[name].locate
        source = locate() if locate is not None else folder
        if source.name == rows.name:
            continue
        copy = folder / _INPUTS / name / rows.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        by_name[name] = file_input(copy, digests)
        if by_name[name].digest != manifest.data[name]:
            raise UserError.one(
                shown(source), "was changed while it was copied", "Run the same command again."
            )
    return replace(inputs, by_name=by_name)


def _data_files(manifest: Manifest, given: GivenPlaces) -> Iterator[_DataFile]:
    recipe = manifest.recipe
    yield _DataFile("data", "dataset_path", "--data", given.data, recipe.dataset_path)
    if recipe.evaluation_path is not None:
        yield _DataFile(
            "evaluation",
            "evaluation_path",
            "--evaluation",
            given.evaluation,
            recipe.evaluation_path,
        )


def _rows(manifest: Manifest) -> Mapping[str, DataRows]:
    return manifest.result(PrepareResult).files


def _code(stage: str) -> str:
    try:
        return code_digest(f"trainer.{stage}")
    except FileNotFoundError:
        return "no such stage here"


def _base(
    manifest: Manifest, given: GivenPlaces, digests: FileDigests, server: ModelServer | None
) -> CachedBase | LocalBase:
    """The base, as far as it is known before it is fetched or made.

    Raises:
        UserError: it cannot be had, or is read from another file.
    """
    recorded, recipe = manifest.base, manifest.recipe
    if not given.base and (kept := find_recorded(recorded)) is not None:
        return kept
    try:
        base = find_base(
            given.base or recipe.model_to_fine_tune,
            recorded.revision or recipe.model_revision,
            recipe.lock,
            digests=digests,
            server=server,
        )
    except UserError as error:
        first = error.problems[0]
        remedy = f"Name the base that the run had ({recorded.source}): --base PATH."
        raise UserError.one(first.where, first.what, remedy) from None
    gguf = base.gguf if isinstance(base, CachedBase) else None
    if gguf is not None and recorded.gguf is not None and gguf.sha256 != recorded.gguf.sha256:
        raise _other_base(recorded, f"{gguf.source} has the sha256 {_short(gguf.sha256)}")
    return base


def _check_base(recorded: BaseIdentity, found: BaseIdentity) -> None:
    if found.digest == recorded.digest:
        return
    names = sorted({*recorded.files, *found.files})
    named = [name for name in names if recorded.files.get(name) != found.files.get(name)]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    raise _other_base(recorded, f"not the same: {', '.join(named[:_MOST_NAMED])}{more}")


def _other_base(recorded: BaseIdentity, what: str) -> UserError:
    revision = f" at {recorded.revision}" if recorded.revision else ""
    return UserError.one(
        "base",
        f"is not the one that the run had, {recorded.source}{revision} "
        f"(sha256 {_short(recorded.digest)}): {what}",
        "Name that one: --base PATH.",
    )


def _check_keys(manifest: Manifest, inputs: RunInputs) -> None:
    """See that nothing else decides a stage otherwise: llama.cpp's converters and tools, say."""
    problems: list[Problem] = []
    for stage, parts in training_key_parts(inputs.recipe, inputs).items():
        record = next((record for record in manifest.stages if record.stage == stage), None)
        if record is not None and record.key == digest_of_value(parts):
            continue
        changes = key_changes(record.decided_by, parts) if record is not None else []
        # Where a stage before it is another, so is this one.
        if changes or not problems:
            what = f"not what made the run: {', '.join(changes) or 'what the run did not record'}"
            problems.append(Problem(where=stage, what=what))
    if problems:
        raise UserError(problems)


def _short(digest: str) -> str:
    return digest[:_SHOWN_DIGITS]
