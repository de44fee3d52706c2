"""The digest of the code behind a stage: its module and all it imports from our own trainer."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from contract.digest import digest_of_file, digest_of_value
from launcher.project import ROOT

_OURS = ("contract", "trainer")


def code_digest(module: str, root: Path = ROOT) -> str:
    """A digest that changes when any line changes that this module can reach.

    Imports are followed through the source, inside functions too, so that editing one stage
    leaves the others up to date.

    Raises:
        FileNotFoundError: no such module below the root.
    """
    files = code_files(module, root)
    return digest_of_value({name: digest_of_file(path) for name, path in files.items()})


def code_files(module: str, root: Path = ROOT) -> dict[str, Path]:
    """The files of the module and of all that it imports from our own code, by module.

    Raises:
        FileNotFoundError: no such module below the root.
    """
    reached: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        path = _source(name, root)
        if path is None:
            raise FileNotFoundError(f"{root}: no module {name}")
        reached[name] = path
        waiting += [found for found in _imports(path) if _source(found, root)]
    return reached


def _source(module: str, root: Path) -> Path | None:
    plain = root.joinpath(*module.split("."))
    for path in (plain.with_suffix(".py"), plain / "__main__.py", plain / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _imports(path: Path) -> frozenset[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(name for name in found if name.partition(".")[0] in _OURS)
