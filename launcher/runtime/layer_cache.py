"""The folder that keeps a build's layers, for machines that do not last (`build --cache`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.runtime.owned_folder import own
from launcher.runtime.shared_cache import hold_place, replace_folder

# In the folder that was given, of which nothing else is removed.
_LAYERS = "layers"


@contextmanager
def layer_cache(folder: Path | None) -> Iterator[list[str]]:
    """What bake is told of the folder that keeps layers; afterwards, it holds those of this build.

    Raises:
        UserError: the folder holds something and is not ours.
    """
    if folder is None:
        yield []
        return
    own(folder, "--cache")
    layers = folder / _LAYERS
    with hold_place(layers) as beside:
        # A new folder each time: in an old one BuildKit leaves what nobody needs any more.
        fresh = beside / _LAYERS
        fresh.mkdir()
        words = ["--set", f"*.cache-to=type=local,dest={fresh},mode=max,compression=zstd"]
        words += [f"--allow=fs={fresh}"]
        if (layers / "index.json").exists():
            words += ["--set", f"*.cache-from=type=local,src={layers}"]
            words += [f"--allow=fs.read={layers}"]
        yield words
        replace_folder(layers, fresh)
