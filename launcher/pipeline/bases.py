"""Which base model is meant, and where it lies: a name of ours, a folder, a GGUF file, a repository
of the Hub, or a model that the Ollama server has.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from contract import paths
from contract.base import SMOKE, BaseIdentity, BaseRequest, GgufRequest
from contract.digest import digest_of_file, digest_of_value, files_below
from contract.errors import Problem, UserError, did_you_mean
from contract.record import Record
from launcher.configuration import read_yaml
from launcher.pipeline.code_digest import code_digest
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.gguf_files import GgufFile, ModelServer, in_package, own_file
from launcher.project import CACHE, MODELS_FILE, lock_file, shown, user_path
from launcher.runtime.removal import remove
from launcher.runtime.shared_cache import (
    copy_if_whole,
    hold_place,
    replace_folder,
    share,
    shared,
)

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
# The hub's client left notes of its own in bases that earlier versions fetched.
_HUBS_NOTES = ".cache/"
# Of the free disk space, at most this much is taken to share a base.
_SHARED_SHARE = 0.5
# A copy on its way into a base's folder.
_TAKEN = ".taken"


@dataclass(frozen=True)
class CachedBase:
    """A base that the stage `base` puts into a folder of the cache.

    One that is made, not fetched, is kept for this user's other clones as well: its folder is named
    after the digest of all that decides it. `key` is of what is pinned, or of the code and the lock
    that make it. `gguf` is the file that it is read from, where it is.
    """

    request: BaseRequest
    folder: Path
    key: str
    gguf: GgufFile | None = None

    @property
    def model(self) -> Path:
        """The Hugging Face folder."""
        return self.folder / paths.BASE_MODEL

    def identity(self, digests: FileDigests) -> BaseIdentity | None:
        """What lies there, or None where it is not whole.

        Raises:
            UserError: a file is not the one that was fetched: what trains on it would be known
                under the digest of another base; or the record is damaged.
        """
        record = self.folder / paths.BASE_RECORD
        if not record.exists():
            return None
        identity = self._read(record)
        found = {path.relative_to(self.model).as_posix(): path for path in files_below(self.model)}
        if not identity.files.keys() <= found.keys():
            return None
        for name, path in found.items():
            # What reads the folder would read any: a chat template, another file of weights.
            what = "was not stored"
            if name in identity.files:
                what = "is not the file that was stored"
                if digests.of(path) == identity.files[name]:
                    continue
            elif name.startswith(_HUBS_NOTES):
                continue
            raise UserError.one(
                shown(path),
                f"{what} for {identity.source}",
                f"Delete {shown(self.folder)}; the next run recreates it.",
            )
        return identity

    def take(self) -> None:
        """Copy it here from where this user's clones share it, if it lies there to the byte."""
        kept = self._kept()
        taken = self.folder / _TAKEN
        remove(taken)
        if kept is None or not copy_if_whole(kept, taken, _is_whole):
            return
        replace_folder(self.model, taken / paths.BASE_MODEL)
        # Last, as where it is made: with it, the folder is whole.
        (taken / paths.BASE_RECORD).rename(self.folder / paths.BASE_RECORD)
        remove(taken)

    def share(self) -> None:
        """Keep what was made here for this user's other clones."""
        kept = self._kept()
        if kept is None:
            return
        size_bytes = sum(file.stat().st_size for file in files_below(self.folder))
        # It saves minutes elsewhere, and is no reason to fail here.
        with suppress(OSError), hold_place(kept):
            # What is damaged there gives way.
            if _is_whole(kept):
                return
            # A disk that it fills costs more than it saves.
            if _SHARED_SHARE * shutil.disk_usage(kept.parent).free >= size_bytes:
                share(self.folder, kept)

    def _read(self, record: Path) -> BaseIdentity:
        with suppress(UserError):
            identity = BaseIdentity.read(record)
            # What is known under it is that of its files, to the byte.
            if identity.digest == digest_of_value(identity.files):
                return identity
        raise UserError.one(
            shown(record),
            "is damaged, or was written by another version of Affineur",
            f"Delete {shown(self.folder)}; the next run recreates it.",
        )

    def _kept(self) -> Path | None:
        return None if self.request.kind == "hub" else shared(self.folder.name)


def _is_whole(folder: Path) -> bool:
    try:
        record = (folder / paths.BASE_RECORD).read_bytes()
        files = BaseIdentity.model_validate_json(record).files
    except (OSError, ValueError):
        return False
    model = folder / paths.BASE_MODEL
    found = {
        path.relative_to(model).as_posix(): digest_of_file(path) for path in files_below(model)
    }
    return found == files


@dataclass(frozen=True)
class LocalBase:
    """A base in a folder of the user's, used where it lies."""

    model: Path

    def identity(self, digests: FileDigests) -> BaseIdentity:
        """The digests of its files, read where they changed since the last time."""
        files = {
            path.relative_to(self.model).as_posix(): digests.of(path)
            for path in files_below(self.model)
        }
        return BaseIdentity(
            source=self.model.name, revision=None, digest=digest_of_value(files), files=files
        )


class _NamedBase(Record):
    """An entry under `bases` in `configs/models.yaml`."""

    embedded: str | None = None
    repository: str | None = None
    revision: str | None = None
    package: str | None = None
    file: str | None = None
    sha256: str | None = None

    def find(self, name: str, revision: str | None, lock: str) -> CachedBase:
        """The base of this entry.

        Raises:
            UserError: it is none of the three kinds.
        """
        if self.embedded == SMOKE:
            return _smoke(lock)
        if self.package and self.file and self.sha256:
            gguf = in_package(name, package=self.package, file=self.file, sha256=self.sha256)
            return _read_from(gguf, lock)
        if self.repository:
            return _hub(self.repository, revision or self.revision)
        raise UserError.one(
            f"{shown(MODELS_FILE)}: bases.{name}",
            "says of no base where it is",
            "Give it repository and revision, or package, file and sha256.",
        )


def find_base(
    model_to_fine_tune: str,
    revision: str | None,
    lock: str,
    *,
    digests: FileDigests | None = None,
    server: ModelServer | None = None,
) -> CachedBase | LocalBase:
    """The base of this name; nothing is fetched or made yet.

    Args:
        digests: of a GGUF file, read where it changed since the last time.
        server: is asked for what is nothing else.

    Raises:
        UserError: it is none of the five, the folder is no complete model, or the file cannot be
            a base.
    """
    named = _named_bases()
    if model_to_fine_tune in named:
        return named[model_to_fine_tune].find(model_to_fine_tune, revision, lock)
    folder = user_path(model_to_fine_tune, "model_to_fine_tune")
    if folder.is_dir():
        _check_folder(folder)
        return LocalBase(folder.resolve())
    if folder.is_file() or model_to_fine_tune.lower().endswith(".gguf"):
        return _read_from(own_file(model_to_fine_tune, digests or FileDigests()), lock)
    if _REPOSITORY.fullmatch(model_to_fine_tune):
        pins = {entry.repository: entry.revision for entry in named.values()}
        return _hub(model_to_fine_tune, revision or pins.get(model_to_fine_tune))
    if server is not None and (served := server.find(model_to_fine_tune)) is not None:
        return _read_from(served, lock)
    raise _unknown(model_to_fine_tune, list(named), server)


def find_recorded(identity: BaseIdentity) -> CachedBase | None:
    """The base that a run recorded and that was read from a GGUF file, if it is in the cache.

    The file may be gone by now, and a server's model of that name be another one.
    """
    if identity.gguf is None:
        return None
    asked = GgufRequest(sha256=identity.gguf.sha256, stops=[])
    request = BaseRequest(kind="gguf", repository=identity.source, revision=None, gguf=asked)
    for record in sorted((CACHE / "bases").glob(f"*/{paths.BASE_RECORD}")):
        with suppress(UserError):
            if BaseIdentity.read(record) == identity:
                return CachedBase(request, record.parent, "")
    return None


def _named_bases() -> dict[str, _NamedBase]:
    entries = (read_yaml(MODELS_FILE) or {}).get("bases") or {}
    try:
        return TypeAdapter(dict[str, _NamedBase]).validate_python(entries)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError.one(
            f"{shown(MODELS_FILE)}: bases.{key}", first["msg"][:1].lower() + first["msg"][1:]
        ) from None


def _unknown(name: str, named: list[str], server: ModelServer | None) -> UserError:
    served = server.names() if server is not None else []
    remedy = f"{did_you_mean(name, [*named, *served])} Known names: {', '.join(named)}."
    if served:
        remedy += f" The server's models: {', '.join(served)}."
    elif server is not None:
        remedy += f" {server.remark}"
    return UserError.one(
        "model_to_fine_tune",
        f"{name!r} is not a name in {shown(MODELS_FILE)}, a folder, a GGUF file, a Hugging Face ID "
        "or a model of the Ollama server",
        remedy.strip(),
    )


def _smoke(lock: str) -> CachedBase:
    # Other code or other libraries make another base.
    made_by = digest_of_value([code_digest("trainer.base.smoke"), digest_of_file(lock_file(lock))])
    request = BaseRequest(kind="smoke", repository=SMOKE, revision=None)
    return CachedBase(request, CACHE / "bases" / f"smoke-{made_by[:12]}", made_by)


def _read_from(gguf: GgufFile, lock: str) -> CachedBase:
    asked = GgufRequest(sha256=gguf.sha256, stops=list(gguf.stops))
    # Another reader may read other numbers.
    made_by = [code_digest("trainer.base.gguf"), digest_of_file(lock_file(lock))]
    key = digest_of_value([*made_by, asked.model_dump()])
    request = BaseRequest(kind="gguf", repository=gguf.source, revision=None, gguf=asked)
    return CachedBase(request, CACHE / "bases" / f"{gguf.name}-{key[:12]}", key, gguf)


def _hub(repository: str, revision: str | None) -> CachedBase:
    # Without a revision, the commit that the first fetch found stays: `base.json` holds it.
    folder = f"{repository.replace('/', '--')}@{revision or 'first-fetched'}"
    request = BaseRequest(kind="hub", repository=repository, revision=revision)
    key = digest_of_value(request.model_dump())
    return CachedBase(request, CACHE / "bases" / folder.replace("/", "--"), key)


def _shards(index: Path) -> list[str]:
    try:
        shards = json.loads(index.read_bytes())["weight_map"].values()
        return sorted({str(shard) for shard in shards})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError.one(
            str(index),
            "is no index of a model in safetensors format",
            "Download the model again: this file is damaged.",
        ) from None


def _check_folder(folder: Path) -> None:
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        missing.append("tokenizer.json")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = _shards(index)
        missing += [shard for shard in shards if not (folder / shard).is_file()]
    elif not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        remedy = "Use the folder of a Hugging Face model in safetensors format."
        if any(folder.glob("*.gguf")):
            remedy = "To read the base from a GGUF file, give the file and not its folder."
        raise UserError(
            [Problem(where=f"{folder}", what=f"has no {name}", remedy=remedy) for name in missing]
        )
