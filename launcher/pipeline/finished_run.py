"""A finished run: its folder, and what it recorded of itself, each part read once.

Found by the name of its model, as Ollama prints it: `NAME:latest` is `NAME`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from contract import paths
from contract.atomic_write import atomic_write
from contract.errors import UserError
from contract.manifest import Manifest, Verification
from contract.recipe import Recipe
from contract.reference import Reference
from contract.serving import Serving
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.model_files import ModelFiles
from launcher.project import MODELS, shown, user_path

# In a model's folder: the name of the run that was brought up to date last. The time of a manifest
# is no measure of it: a run to which one returns writes none, and clocks are set back.
_LATEST = Path("latest")
# Beside a model's runs: the evaluations of what a server has under its name and was not made here.
SERVED = "served-"
# What has another meaning in a path; '%' first, so that each name can be read back.
_ESCAPES = {"%": "%25", "/": "%2F", ":": "%3A"}


class Run:
    """A finished run's parts: read from its folder when they are first asked for, then kept."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet; `Run.find` finds the folder of a model's run."""
        self.folder = folder

    @classmethod
    def named(cls, name: str) -> Run:
        """The run that a person means by one word.

        That is a model's name, `NAME@KEY` with the start of a run's key, a run's folder or its
        manifest, which may lie in another clone, or a model's folder here.

        Raises:
            UserError: there is no such run.
        """
        path = user_path(name, "RUN")
        if path.name == paths.MANIFEST.name and path.is_file():
            return cls(path.resolve().parent)
        if (path / paths.MANIFEST).is_file():
            return cls(path.resolve())
        if path.is_dir() and path.resolve().parent == MODELS.resolve():
            return cls.find(model_name(path.resolve()), flags=("RUN", "RUN"))
        model, _, key = name.partition("@")
        return cls.find(model, key, flags=("RUN", "RUN"))

    @classmethod
    def find(
        cls, model: str, key: str = "", *, flags: tuple[str, str] = ("--model", "--run")
    ) -> Run:
        """The model's run that was brought up to date last, or the one whose key begins so.

        Args:
            flags: by which a person named the model and the key.

        Raises:
            UserError: there is no such model here, or no such finished run of it.
        """
        folder = model_folder(model)
        finished = [path.parent for path in folder.glob(f"*/{paths.MANIFEST}")]
        if not finished:
            found = {
                model_name(path.parent.parent) for path in MODELS.glob(f"*/*/{paths.MANIFEST}")
            }
            remedy = (
                f"Known: {', '.join(sorted(found))}." if found else "Train one: ./invoke train."
            )
            raise UserError.one(flags[0], f"{model} has no finished run here", remedy)
        matching = [cls(path) for path in finished if path.name.startswith(key)]
        if not matching:
            runs = ", ".join(sorted(path.name for path in finished))
            raise UserError.one(
                flags[1], f"{shown(folder)} has no finished run {key}", f"Finished runs: {runs}."
            )
        readable = [run for run in matching if run.is_finished]
        last = named_latest(folder)
        # Where none is named, by what they say: a later verification rewrites the manifest.
        return max(readable or matching, key=lambda run: (run.name == last, run.manifest.created))

    @classmethod
    def exists(cls, model: str) -> bool:
        """Whether there is a finished run of this model."""
        return any(model_folder(model).glob(f"*/{paths.MANIFEST}"))

    @property
    def name(self) -> str:
        """The beginning of its key, which names its folder."""
        return self.folder.name

    @property
    def is_finished(self) -> bool:
        """Whether there is a manifest of this version."""
        try:
            return bool(self.manifest)
        except (OSError, UserError):
            return False

    @cached_property
    def manifest(self) -> Manifest:
        """What it recorded of itself.

        Raises:
            UserError: another version of this project wrote it.
        """
        return Manifest.read(self.folder / paths.MANIFEST)

    @property
    def recipe(self) -> Recipe:
        """The recipe, as the manifest has it."""
        return self.manifest.recipe

    @cached_property
    def serving(self) -> Serving:
        """How its model is to be served."""
        return Serving.read(self.folder / paths.SERVING)

    @cached_property
    def reference(self) -> Reference:
        """What its served model must answer.

        Raises:
            UserError: the run has none.
        """
        path = self.folder / paths.REFERENCE
        if not path.exists():
            raise UserError.one(shown(path), "does not exist", "Run ./invoke train again.")
        return Reference.read(path)

    @property
    def adapter(self) -> Path:
        """The folder of the LoRA adapter."""
        return self.folder / paths.ADAPTER

    @property
    def evaluation_folder(self) -> Path:
        """Where evaluations of its model keep questions and answers."""
        return self.folder / paths.EVALUATION_FOLDER

    @property
    def keys(self) -> dict[str, str]:
        """The key of each of its stages."""
        return {record.stage: record.key for record in self.manifest.stages}

    @cached_property
    def files(self) -> ModelFiles:
        """Its served model, compared on disk with what the run made.

        Raises:
            UserError: a file is not there, or is not what the run made.
        """
        return self.files_as(self.serving)

    @property
    def model_digest(self) -> str:
        """The digest of its served model, the same on every server."""
        return self.files.digest

    @property
    def recorded_model_digest(self) -> str:
        """`model_digest` by what the run recorded: no file of the model is looked at."""
        made = self.manifest.outputs
        serving = self.serving
        named = [name for name in (serving.gguf, serving.adapter) if name is not None]
        recorded = {name: f"sha256:{made[name]}" for name in named}
        return ModelFiles(self.recipe.output_model_name, self.folder, serving, recorded).digest

    def files_as(self, serving: Serving) -> ModelFiles:
        """Its files in another form than the served one, compared with what the run made.

        Raises:
            UserError: a file is not there, or is not what the run made.
        """
        named = [name for name in (serving.gguf, serving.adapter) if name is not None]
        found = {name: f"sha256:{digest}" for name, digest in self.check_made(named).items()}
        return ModelFiles(self.recipe.output_model_name, self.folder, serving, found)

    def outputs_below(self, *places: Path) -> list[str]:
        """The files that its stages made at these places, relative to its folder; sorted."""
        made = map(Path, self.manifest.outputs)
        return sorted(
            name.as_posix() for name in made if any(name.is_relative_to(place) for place in places)
        )

    def check_made(self, names: Iterable[str]) -> dict[str, str]:
        """The digests of files, compared on disk with what the run made.

        Raises:
            UserError: one is not there, or is not what the run made.
        """
        digests = FileDigests()
        made = self.manifest.outputs
        found = {}
        for name in names:
            path = self.folder / name
            digest = digests.of(path) if path.is_file() else None
            if digest is None or digest != made.get(name):
                what = (
                    "does not exist"
                    if digest is None
                    else "is not the file that the run created (truncated?)"
                )
                raise UserError.one(
                    shown(path), what, "Run ./invoke train again: it will be rebuilt."
                )
            found[name] = digest
        digests.save()
        return found

    def write_manifest(self, manifest: Manifest) -> None:
        """Write it whole; its being there says that the run is finished."""
        manifest.write(self.folder / paths.MANIFEST)
        self.manifest = manifest

    def name_latest(self) -> None:
        """Let `find` find it: its stages are up to date, whether or not one of them ran."""
        atomic_write(self.folder.parent / _LATEST, f"{self.name}\n")

    def record_verification(self, verification: Verification) -> None:
        """Put the last proof of its served model into the manifest."""
        self.write_manifest(self.manifest.model_copy(update={"verification": verification}))


def canonical_name(model: str) -> str:
    """The model's name as it is known here: Ollama prints `NAME:latest` for `NAME`."""
    return model.removesuffix(":latest")


def model_folder(model: str) -> Path:
    """`data/models/<model>/`; '/' and ':' in the name become '%2F' and '%3A', so that two models
    never share a folder.
    """
    name = canonical_name(model)
    for letter, escape in _ESCAPES.items():
        name = name.replace(letter, escape)
    return MODELS / name


def model_name(folder: Path) -> str:
    """The name of the model that has this folder."""
    name = folder.name
    for letter, escape in reversed(_ESCAPES.items()):
        name = name.replace(escape, letter)
    return name


def run_folders(model: str = "") -> list[Path]:
    """The folders of all runs here, finished or not, or of one model's; by model, then by key."""
    every = sorted(MODELS.iterdir()) if MODELS.is_dir() else []
    models = [model_folder(model)] if model else every
    return [
        run
        for folder in models
        if folder.is_dir()
        for run in sorted(folder.iterdir())
        if run.is_dir() and not run.name.startswith((".", SERVED))
    ]


def named_latest(folder: Path) -> str:
    """The name of the run in a model's folder that was brought up to date last, as it is written
    there; empty where nothing is.
    """
    try:
        return (folder / _LATEST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
