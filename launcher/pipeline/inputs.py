"""Find what a run reads: the dataset, the evaluation set, the base model, llama.cpp's parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contract import paths
from contract.base import BaseIdentity
from contract.errors import UserError
from contract.gguf_header import PLAIN_TYPES
from contract.recipe import Recipe
from launcher.display import Display
from launcher.pipeline.bases import CachedBase, LocalBase, find_base
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.gguf_files import ModelServer
from launcher.pipeline.memory_plan import shape_of, with_memory_decided
from launcher.pipeline.runner import StageContext, StageFolder, StageRunner
from launcher.pipeline.stages import BASE, Input, needs_tools
from launcher.project import ROOT, shown, user_path
from launcher.runtime import llama_cpp_sources
from launcher.runtime.dependency_locks import lock_digest
from launcher.runtime.engine import Engine
from launcher.runtime.exclusive_lock import exclusive_lock
from launcher.runtime.llama_cpp_tools import tools, tools_digest

# Of a system prompt, on the terminal.
_SHOWN_LETTERS = 120


@dataclass(frozen=True)
class RunInputs:
    """What a run reads, by the names that its stages know it by, and which base it is.

    The recipe is the one that was given, with the system prompt that comes with the base where it
    had none.
    """

    recipe: Recipe
    base: BaseIdentity
    by_name: Mapping[str, Input]

    def digests(self, *names: str) -> dict[str, str]:
        """The digests of those of these that the run has."""
        return {name: self.by_name[name].digest for name in names if name in self.by_name}


def gather(
    recipe: Recipe,
    *,
    engine: Engine,
    display: Display,
    digests: FileDigests,
    server: ModelServer | None = None,
) -> RunInputs:
    """Find the inputs, and put the base into the cache where it is not.

    Args:
        server: has the base, where its name is nothing else.

    Raises:
        UserError: a dataset that is not there, a base that cannot be had.
    """
    find_data(recipe)
    base = base_of(recipe, digests, server)
    identity = found_base(base, recipe, engine=engine, display=display, digests=digests)
    return _run_inputs(recipe, base, identity, display=display, digests=digests)


def found_base(
    base: CachedBase | LocalBase,
    recipe: Recipe,
    *,
    engine: Engine,
    display: Display,
    digests: FileDigests,
) -> BaseIdentity:
    """Which base it turned out to be, put into the cache where it was not.

    Raises:
        UserError: it cannot be had.
    """
    if isinstance(base, LocalBase):
        return base.identity(digests)
    identity = _bring_base_up_to_date(base, recipe, engine=engine, display=display, digests=digests)
    _note_rounding(identity, display)
    return identity


def inputs_at_hand(
    recipe: Recipe,
    *,
    display: Display,
    digests: FileDigests,
    server: ModelServer | None = None,
    base: CachedBase | LocalBase | None = None,
) -> RunInputs | None:
    """The inputs where nothing is to be fetched or made first; None where the base is not there.

    Args:
        base: the recipe's, where it was looked for before.

    Raises:
        UserError: a dataset that is not there, a base that cannot be had.
    """
    find_data(recipe)
    base = base or base_of(recipe, digests, server)
    identity = base.identity(digests)
    if identity is None:
        return None
    return _run_inputs(recipe, base, identity, display=display, digests=digests)


def find_data(recipe: Recipe) -> tuple[Path, Path | None]:
    """The dataset, and the evaluation set where the recipe has one.

    Raises:
        UserError: one of them is not there.
    """
    evaluation = recipe.evaluation_path
    return (
        find_dataset(recipe.dataset_path, "dataset_path"),
        find_dataset(evaluation, "evaluation_path") if evaluation else None,
    )


def find_dataset(path: str, key: str) -> Path:
    """The file that a key names: looked for from the working directory, then from the project.

    Raises:
        UserError: there is no such file.
    """
    given = user_path(path, key)
    for candidate in (given, ROOT / given):
        if candidate.is_file():
            return candidate.resolve()
    what = "is a folder" if given.is_dir() or (ROOT / given).is_dir() else "does not exist"
    folder = (ROOT / given).parent
    near = sorted(entry.name for entry in folder.glob("[!.]*.*") if entry.is_file())[:8]
    remedy = f"In {shown(folder)}: {', '.join(near)}." if near else "Specify a file: --data FILE."
    raise UserError.one(key, f"{path} {what}", remedy)


def file_input(path: Path, digests: FileDigests) -> Input:
    """A file that is read where it lies."""
    return Input(digests.of(path), lambda: path, digests.stamps([path]))


def base_input(identity: BaseIdentity, model: Path, digests: FileDigests) -> Input:
    """A base whose files were compared with its identity, in the folder where they lie."""
    files = [model / name for name in identity.files]
    return Input(identity.digest, lambda: model, digests.stamps(files))


def llama_cpp_inputs(display: Display) -> dict[str, Input]:
    """llama.cpp's converters and compiled tools; they are fetched and built when they are read."""
    return {
        "llama_cpp": Input(lock_digest("llama-cpp"), lambda: llama_cpp_sources.llama_cpp(display)),
        "tools": Input(tools_digest(), lambda: tools(display)),
    }


def base_of(
    recipe: Recipe, digests: FileDigests, server: ModelServer | None
) -> CachedBase | LocalBase:
    """The base that a recipe names; nothing is fetched or made yet.

    Raises:
        UserError: it cannot be had.
    """
    return find_base(
        recipe.model_to_fine_tune,
        recipe.model_revision,
        recipe.lock,
        digests=digests,
        server=server,
    )


def _with_system_prompt(recipe: Recipe, base: CachedBase | LocalBase, display: Display) -> Recipe:
    """The recipe with the system prompt of the server's model, where it has none of its own."""
    gguf = base.gguf if isinstance(base, CachedBase) else None
    if gguf is None:
        return recipe
    if gguf.not_taken:
        display.note(f"not taken from {gguf.source}: {'; '.join(gguf.not_taken)}")
    if gguf.system_prompt is None or recipe.system_prompt is not None:
        return recipe
    said = " ".join(gguf.system_prompt.split())
    said = said if len(said) <= _SHOWN_LETTERS else f"{said[:_SHOWN_LETTERS]}..."
    display.note(f"system prompt of {gguf.source}: {said}")
    return recipe.model_copy(update={"system_prompt": gguf.system_prompt})


def _note_rounding(base: BaseIdentity, display: Display) -> None:
    if base.gguf is not None and base.gguf.weight_type not in PLAIN_TYPES:
        display.note(
            f"the base's weights are those of a {base.gguf.weight_type} file "
            f"({base.gguf.bits_per_weight:.1f} bits a weight): what it lost when it was made stays "
            "lost"
        )


def _run_inputs(
    recipe: Recipe,
    base: CachedBase | LocalBase,
    identity: BaseIdentity,
    *,
    display: Display,
    digests: FileDigests,
) -> RunInputs:
    recipe = _with_system_prompt(recipe, base, display)
    recipe = with_memory_decided(recipe, shape_of(base))
    data, evaluation = find_data(recipe)
    files = {"data": data} if evaluation is None else {"data": data, "evaluation": evaluation}
    return inputs_of(
        recipe, identity, model=base.model, files=files, display=display, digests=digests
    )


def inputs_of(
    recipe: Recipe,
    base: BaseIdentity,
    *,
    model: Path,
    files: Mapping[str, Path],
    display: Display,
    digests: FileDigests,
) -> RunInputs:
    """The inputs of a recipe of which nothing is left to be decided.

    Args:
        model: the folder of the base, whose files were compared with its identity.
        files: the dataset as `data`, and the evaluation set as `evaluation` where there is one.
    """
    found = {
        "base": base_input(base, model, digests),
        **llama_cpp_inputs(display),
        **{name: file_input(path, digests) for name, path in files.items()},
    }
    if not needs_tools(recipe):
        del found["tools"]
    return RunInputs(recipe, base, found)


def _bring_base_up_to_date(
    base: CachedBase, recipe: Recipe, *, engine: Engine, display: Display, digests: FileDigests
) -> BaseIdentity:
    identity = base.identity(digests)
    if identity is not None:
        display.up_to_date(BASE.name)
        return identity
    with exclusive_lock(base.folder, wait=True):
        # Another launcher may have made it meanwhile, and reads it now: it is not replaced.
        if (identity := base.identity(digests)) is not None:
            display.up_to_date(BASE.name)
            return identity
        base.take()
        if (identity := base.identity(digests)) is not None:
            return identity
        base.request.write(base.folder / paths.BASE_REQUEST)
        from_hub = base.request.kind == "hub"
        token = os.environ.get("HF_TOKEN")
        inputs = {}
        if (gguf := base.gguf) is not None:
            inputs["gguf"] = Input(gguf.sha256, lambda: gguf.locate(display))
        context = StageContext(
            lock=recipe.lock,
            inputs=inputs,
            network=from_hub,
            secrets={"HF_TOKEN": token} if token and from_hub else {},
            labels={"profile": recipe.profile},
        )
        folder = StageFolder(base.folder, digests)
        runner = StageRunner(folder, context, engine=engine, display=display)
        runner.bring_up_to_date(BASE, base.key)
        identity = base.identity(digests)
        if identity is None:
            raise UserError.one(
                shown(base.folder), "is incomplete", "Delete it and run the same command again."
            )
        base.share()
    return identity
