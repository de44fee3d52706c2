"""What the site does beside mkdocs: documents from elsewhere in the repository, and two languages.

A document is shown from its own place, so that each fact stands in one. The pages are written for
the repository, where a link is a path between files; here it becomes a link between pages.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.nav import Navigation, Section
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# Where each stands in the repository -> which page it is.
DOCUMENTS = {
    "ARCHITECTURE.md": "reference/architecture.md",
    "BENCHMARKS.md": "reference/benchmarks.md",
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "reference/contributing.md",
    "SECURITY.md": "reference/security.md",
    "configs/README.md": "reference/configuration.md",
    "data/evaluation/README.md": "reference/evaluation-sets.md",
    "data/training/README.md": "reference/training-data.md",
}
_SOURCES = {page: document for document, page in DOCUMENTS.items()}
_CODE = r"(?P<code>^ *```.*?^ *```|`[^`]+`)"
_LINK = re.compile(
    rf"{_CODE}|(?<!!)\[(?P<text>[^\[\]]+)\]\((?P<target>[^()\s]+)\)", re.MULTILINE | re.DOTALL
)
# A French sign stands apart from its word and never begins a line.
_FRENCH_SPACE = re.compile(rf"{_CODE}|(?<=\S) (?=[:;!?»%])|(?<=«) ", re.MULTILINE | re.DOTALL)
_FOR_ENGINES = re.compile(r"<link rel=\"alternate\"[^>]*>\s*")
_LANGUAGES = {"en": "English", "fr": "Français"}
_FRENCH_TOGGLES = ("Passer au thème clair", "Passer au thème sombre", "Suivre le système")
_english_toggles: list[str] = []
_navigation: dict[str, Navigation] = {}
_urls: dict[str, str] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that stand elsewhere."""
    from mkdocs.structure.files import File

    for document, page in DOCUMENTS.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / document)))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Take the languages apart: each is all that a page of it shows."""
    for language, section in zip(_LANGUAGES, nav.items, strict=True):
        _navigation[language] = _apart(section)
    _urls.clear()
    _urls.update({page.file.src_uri: page.url for page in nav.pages})
    _english_toggles[:] = [colours["toggle"]["name"] for colours in config.theme["palette"]]
    return _navigation["en"]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The text with links between pages in place of links between files."""
    uri = page.file.src_uri
    if _language(uri) == "fr":
        markdown = _FRENCH_SPACE.sub(lambda found: found["code"] or "\u00a0", markdown)
    return with_links_between_pages(markdown, _SOURCES.get(uri, f"docs/{uri}"))


def on_page_context(
    context: dict[str, Any], page: Page, config: MkDocsConfig, nav: Navigation
) -> dict[str, Any]:
    """Give a page the navigation and the words of its language, and its counterpart."""
    language = _language(page.file.src_uri)
    config.theme["language"] = language
    toggles = _FRENCH_TOGGLES if language == "fr" else _english_toggles
    for colours, name in zip(config.theme["palette"], toggles, strict=True):
        colours["toggle"]["name"] = name
    config.extra["alternate"] = [
        {"lang": other, "name": name, "link": _counterpart(page.file.src_uri, other)}
        for other, name in _LANGUAGES.items()
    ]
    context["nav"] = _navigation[language]
    return context


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Without the links for search engines, which the theme's script follows as well.

    It asks for a map of the other language beside each, and a page from a disk may not.
    """
    return _FOR_ENGINES.sub("", output)


def with_links_between_pages(markdown: str, source: str) -> str:
    """The text of a document with each link to a file as one to its page.

    A file that is no page is named instead. What exists nowhere is left, for mkdocs to refuse.

    Args:
        source: where the document stands in the repository.
    """

    def between_pages(found: re.Match[str]) -> str:
        if found["code"]:
            return found[0]
        path, mark, anchor = found["target"].partition("#")
        if not path or ":" in path:
            return found[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page = _page_of(file)
        if page is not None:
            here = posixpath.dirname(_page_of(source) or "") or "."
            return f"[{found['text']}]({posixpath.relpath(page, here)}{mark}{anchor})"
        if file.startswith("..") or not (ROOT / file).exists():
            return found[0]
        return found["text"] if file in found["text"] else f"{found['text']} (`{file}`)"

    return _LINK.sub(between_pages, markdown)


def _page_of(file: str) -> str | None:
    if file in DOCUMENTS:
        return DOCUMENTS[file]
    return file.removeprefix("docs/") if re.fullmatch(r"docs/.+\.md", file) else None


def _language(uri: str) -> str:
    return "fr" if uri.startswith("fr/") else "en"


def _counterpart(uri: str, language: str) -> str:
    """The address of the page in a language, or of that language's first page."""
    name = uri.removeprefix("fr/")
    folder = "fr/" if language == "fr" else ""
    return _urls.get(f"{folder}{name}", _urls[f"{folder}index.md"])


def _apart(section: Section) -> Navigation:
    from mkdocs.structure.nav import Navigation

    for item in section.children:
        item.parent = None
    pages = list(_pages(section.children))
    pages[0].previous_page = pages[-1].next_page = None
    nav = Navigation(section.children, pages)
    nav.homepage = pages[0]
    return nav


def _pages(items: list[Any]) -> Iterator[Page]:
    for item in items:
        if item.is_page:
            yield item
        elif item.is_section:
            yield from _pages(item.children)
