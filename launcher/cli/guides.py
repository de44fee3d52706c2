"""The guides in docs/ as a site: build it, or show it while it is written."""

from __future__ import annotations

from pathlib import Path

from launcher.cli.checks import run_tool
from launcher.display import Display
from launcher.project import CACHE, ROOT, shown
from launcher.runtime.environment import ensure_environment

SITE = CACHE / "site"
_CONFIGURATION = ROOT / "docs" / "site" / "mkdocs.yml"


def build(site: Path = SITE) -> None:
    """Write the site into a folder, and print its first page, which opens without a server.

    Raises:
        SystemExit: with mkdocs's code, where a link leads nowhere or a page is in no menu; mkdocs
            has said which.
    """
    _mkdocs("build", "--strict", "--site-dir", str(site))
    print(shown(site / "index.html"))


def serve() -> None:
    """Show the site at 127.0.0.1:8000, and again after each change, until a Ctrl-C."""
    _mkdocs("serve")


def _mkdocs(*arguments: str) -> None:
    python = ensure_environment("docs", ["docs"], Display())
    run_tool(
        [str(python), "-m", "mkdocs", *arguments, "--config-file", str(_CONFIGURATION)],
        # Of the theme's end; docker/locks/docs.in has it.
        NO_MKDOCS_2_WARNING="1",
    )
