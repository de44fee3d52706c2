"""Which base model is meant, and where it lies: a name of ours, a hub repository, or a folder."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract import paths
from contract.atomic_write import atomic_write
from contract.base import SMOKE, BaseIdentity, BaseRequest
from contract.digest import digest_of_file, digest_of_value, files_below
from contract.errors import Problem, UserError, did_you_mean
from launcher.configuration import read_yaml
from launcher.pipeline.code_digest import code_digest
from launcher.pipeline.file_digests import FileDigests
from launcher.project import CACHE, MODELS_FILE, lock_file, shown
from launcher.runtime.shared_cache import copy_whole, shared

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_OLLAMA_TAG = re.compile(r"[\w./-]+:[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class CachedBase:
    """A base that the stage `base` puts into a folder of the cache.

    One that is made, not fetched, is kept for this user's other clones as well: its folder is named
    after the digest of all that decides it. `key` is of what is pinned, or of the code and the lock
    that make it.
    """

    request: BaseRequest
    folder: Path
    key: str

    @property
    def model(self) -> Path:
        """The Hugging Face folder."""
        return self.folder / paths.BASE_MODEL

    def identity(self, digests: FileDigests) -> BaseIdentity | None:
        """What lies there, or None where it is not whole.

        Raises:
            UserError: a file is not the one that was fetched: what trains on it would be known
                under the digest of another base.
        """
        record = self.folder / paths.BASE_RECORD
        if not record.exists():
            return None
        identity = BaseIdentity.read(record)
        if not all((self.model / name).is_file() for name in identity.files):
            return None
        for name, digest in identity.files.items():
            if digests.of(self.model / name) != digest:
                raise UserError.one(
                    shown(self.model / name),
                    f"is not the file that was stored for {identity.source}",
                    f"Delete {shown(self.folder)}; the next run recreates it.",
                )
        return identity

    def take(self) -> None:
        """Copy it here from where this user's clones share it, if it lies there to the byte."""
        kept = self._kept()
        if kept is None or not kept.is_dir():
            return
        if not _is_whole(kept):
            # What is made anew takes its place.
            shutil.rmtree(kept, ignore_errors=True)
            return
        shutil.rmtree(self.model, ignore_errors=True)
        shutil.copytree(kept / paths.BASE_MODEL, self.model)
        # Last, as where it is made: with it, the folder is whole.
        atomic_write(self.folder / paths.BASE_RECORD, (kept / paths.BASE_RECORD).read_text())

    def share(self) -> None:
        """Keep what was made here for this user's other clones."""
        kept = self._kept()
        if kept is not None and not kept.exists():
            copy_whole(self.folder, kept)

    def _kept(self) -> Path | None:
        return shared(self.folder.name) if self.request.kind == "smoke" else None


def _is_whole(folder: Path) -> bool:
    try:
        record = (folder / paths.BASE_RECORD).read_bytes()
        files = BaseIdentity.model_validate_json(record).files
    except (FileNotFoundError, ValueError):
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


def find_base(model_to_fine_tune: str, revision: str | None, lock: str) -> CachedBase | LocalBase:
    """The base of this name; nothing is fetched or made yet.

    Raises:
        UserError: it is none of the three, or the folder is no complete model.
    """
    named: dict[str, Any] = (read_yaml(MODELS_FILE) or {}).get("bases") or {}
    if model_to_fine_tune in named:
        entry = named[model_to_fine_tune]
        if entry.get("embedded") == SMOKE:
            return _smoke(lock)
        return _hub(entry["repository"], revision or entry.get("revision"))
    folder = Path(model_to_fine_tune).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return LocalBase(folder.resolve())
    if _REPOSITORY.fullmatch(model_to_fine_tune):
        pins = {entry.get("repository"): entry.get("revision") for entry in named.values()}
        return _hub(model_to_fine_tune, revision or pins.get(model_to_fine_tune))
    raise _unknown(model_to_fine_tune, list(named))


def _unknown(name: str, named: list[str]) -> UserError:
    if _OLLAMA_TAG.fullmatch(name):
        return UserError.one(
            "model_to_fine_tune",
            f"{name!r} looks like an Ollama tag: its weights are quantized for serving "
            "and cannot be trained",
            "Use the Hugging Face ID of the original model, such as Qwen/Qwen2.5-1.5B-Instruct.",
        )
    return UserError.one(
        "model_to_fine_tune",
        f"{name!r} is not a name in {shown(MODELS_FILE)}, a Hugging Face ID or a folder",
        f"{did_you_mean(name, named)} Known names: {', '.join(named)}.".lstrip(),
    )


def _smoke(lock: str) -> CachedBase:
    # Other code or other libraries make another base.
    made_by = digest_of_value([code_digest("trainer.base.smoke"), digest_of_file(lock_file(lock))])
    request = BaseRequest(kind="smoke", repository=SMOKE, revision=None)
    return CachedBase(request, CACHE / "bases" / f"smoke-{made_by[:12]}", made_by)


def _hub(repository: str, revision: str | None) -> CachedBase:
    # Without a revision, the commit that the first fetch found stays: `base.json` holds it.
    folder = f"{repository.replace('/', '--')}@{revision or 'first-fetched'}"
    request = BaseRequest(kind="hub", repository=repository, revision=revision)
    key = digest_of_value(request.model_dump())
    return CachedBase(request, CACHE / "bases" / folder.replace("/", "--"), key)


def _check_folder(folder: Path) -> None:
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        missing.append("tokenizer.json")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        missing += [shard for shard in shards if not (folder / shard).is_file()]
    elif not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        remedy = "Use the folder of a Hugging Face model in safetensors format."
        if any(folder.glob("*.gguf")):
            remedy = "GGUF files are for serving; use the model that it was converted from."
        raise UserError(
            [Problem(where=f"{folder}", what=f"has no {name}", remedy=remedy) for name in missing]
        )
