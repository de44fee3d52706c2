"""The guides as a site: no link to nothing, both languages, and no request to another host."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from launcher.cli import guides
from launcher.project import ROOT
from tests.conftest import fresh_copy
from tests.launcher.test_documented_commands import commands_in_blocks

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
# The user's way: each of its pages is there in French as well.
WAY = ["index.md", "first-run.md", "data.md", "training.md", "evaluation.md", "promotion.md"]
# What a browser loads by itself, by the tag's attribute; and `url()` in styles.
_LOADED = {("link", "href"), ("object", "data"), ("use", "href"), ("use", "xlink:href")}
_ELSEWHERE = re.compile(r"(?:[a-z]+:)?//", re.IGNORECASE)
_IN_STYLES = re.compile(r"(?:url\(|@import)\s*[\"']?((?:[a-z]+:)?//[^\"')\s]+)", re.IGNORECASE)


class Html(HTMLParser):
    """What a page loads, the languages that it links to, and its own."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.languages: dict[str, Path] = {}
        self.own = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.languages = {name: path.parent / link for name, link in self.languages.items()}

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        if tag == "html":
            self.own = given["lang"]
        if tag == "a" and "hreflang" in given:
            self.languages[given["hreflang"]] = given["href"]
        self.loaded += [
            value
            for name, value in given.items()
            if name in ("src", "srcset", "poster") or (tag, name) in _LOADED
        ]


def loaded_from_elsewhere(site: Path) -> list[str]:
    """Every address of another host that a page or a style of the site has loaded."""
    found = [
        f"{page.relative_to(site)}: {address}"
        for page in site.rglob("*.html")
        for address in Html(page).loaded
        if _ELSEWHERE.match(address)
    ]
    for file in [*site.rglob("*.css"), *site.rglob("*.html")]:
        found += _IN_STYLES.findall(file.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `./invoke docs` does: strictly."""
    folder: Path = tmp_path_factory.mktemp("site")
    guides.build(folder)
    return folder


def built(site: Path, page: str) -> Html:
    return Html((site / page).with_suffix(".html"))


def test_every_page_is_in_the_site(site):
    assert [page for page in PAGES if not (site / page).with_suffix(".html").exists()] == []
    assert {*WAY, *(f"fr/{page}" for page in WAY)} <= set(PAGES)


def test_the_site_holds_documents_of_the_repository_from_their_own_place(site):
    page = (site / "reference/configuration.html").read_text(encoding="utf-8")
    assert "gradient_accumulation_steps" in page
    architecture = (site / "contributors.html").read_text(encoding="utf-8")
    assert 'href="reference/architecture.html#by-symptom"' in architecture


@pytest.mark.parametrize(
    ("page", "said"),
    [("data.md", "nowhere.md"), ("fr/data.md", "nowhere.md"), ("lost.md", "lost.md")],
)
def test_a_link_to_nothing_and_a_page_in_no_menu_end_the_build(
    page, said, tmp_path, monkeypatch, capfd
):
    project = fresh_copy(tmp_path / "project")
    with (project / "docs" / page).open("a", encoding="utf-8") as file:
        file.write("\n[link](nowhere.md)\n" if "data" in page else "# Lost\n")
    monkeypatch.setattr(guides, "_CONFIGURATION", project / "docs/site/mkdocs.yml")
    with pytest.raises(SystemExit) as ended:
        guides.build(tmp_path / "site")
    assert ended.value.code == 1
    assert said in capfd.readouterr().err


def test_the_site_loads_nothing_from_another_host(site):
    assert built(site, "index.md").loaded, "its scripts and styles"
    assert loaded_from_elsewhere(site) == []


@pytest.mark.parametrize(
    "planted",
    [
        '<script src="https://a.example/a.js"></script>',
        '<link rel="stylesheet" href="//a.example/a.css">',
        '<img src="http://a.example/a.png">',
        "<style>@font-face { src: url(https://a.example/a.woff2) }</style>",
        '<p style="background: url(//a.example/a.png)">',
    ],
)
def test_what_is_loaded_from_another_host_is_found(planted, tmp_path):
    (tmp_path / "page.html").write_text(f'<html lang="en"><a href="https://b.example/">{planted}')
    (found,) = set(loaded_from_elsewhere(tmp_path))
    assert "a.example" in found


def test_both_languages_are_reached_from_every_page(site):
    for path in site.rglob("*.html"):
        if path.name == "404.html":
            continue
        page = Html(path)
        assert page.own == ("fr" if path.parent.name == "fr" else "en"), path
        assert page.languages.keys() == {"en", "fr"}, path
        assert [link for link in page.languages.values() if not link.exists()] == []


@pytest.mark.parametrize("page", WAY)
def test_a_page_of_the_users_way_leads_to_its_counterpart(page, site):
    english, french = built(site, page), built(site, f"fr/{page}")
    english_file = (site / page).with_suffix(".html")
    french_file = (site / "fr" / page).with_suffix(".html")
    for links in (english.languages, french.languages):
        assert links["en"].resolve() == english_file
        assert links["fr"].resolve() == french_file


def test_a_page_without_a_counterpart_leads_to_the_first_page_in_french(site):
    assert built(site, "serving.md").languages["fr"].resolve() == site / "fr/index.html"


def headings(page: str) -> list[int]:
    """The levels of a page's headings."""
    text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text("utf-8"), flags=re.M | re.S)
    return [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]


@pytest.mark.parametrize("page", WAY)
def test_the_french_page_has_the_headings_and_the_commands_of_the_english_one(page):
    assert headings(page) == headings(f"fr/{page}") != []
    english, french = (
        commands_in_blocks((DOCS / name).read_text(encoding="utf-8"))
        for name in (page, f"fr/{page}")
    )
    flags = [[word for word in words if word.startswith("--")] for words in english]
    assert [[word for word in words if word.startswith("--")] for words in french] == flags
    assert [words[0] for words in english] == [words[0] for words in french]


def test_french_signs_are_held_to_their_words(site):
    text = (site / "fr/index.html").read_text(encoding="utf-8")
    assert "reproductible\u00a0:" in text
    assert "reproductible :" not in text
