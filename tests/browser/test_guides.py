"""The guides in a real browser, from the disk: desk and phone, light and dark, and the search."""

from pathlib import Path

import pytest

from launcher.cli import guides

# A page's script asks for more once it has loaded.
_SETTLED = "new Promise(settled => setTimeout(settled, 300))"
# Type a word, and wait for the pages that are found.
_FOUND = """
new Promise((found, failed) => {
  document.querySelector("[data-md-toggle=search]").click();
  const field = document.querySelector(".md-search__input");
  field.focus();
  field.value = "WORD";
  let left = 200;
  const look = () => {
    field.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}));
    const links = [...document.querySelectorAll(".md-search-result__link")];
    if (links.length) found(links.map(link => link.pathname));
    else if (left-- === 0) failed(new Error("nothing is found"));
    else setTimeout(look, 50);
  };
  look();
})
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("site")
    guides.build(folder)
    return folder


def wait_for(browser, promise: str):
    answer = browser.ask(
        "Runtime.evaluate", expression=promise, awaitPromise=True, returnByValue=True
    )
    assert "exceptionDetails" not in answer, answer
    return answer["result"].get("value")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_runs_over_the_edge_or_complains_or_asks_another_host(browser, site, width, scheme):
    browser.look_like(width=width, height=900, scheme=scheme)
    # A server's page for what it does not have: its addresses begin at the server's root.
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 20
    for page in pages:
        browser.open(page)
        wait_for(browser, _SETTLED)
        assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0, page
        assert [url for url in browser.requests() if not url.startswith(("file:", "data:"))] == []
        assert browser.complaints() == [], page
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize(
    ("start", "word", "page"),
    [("index", "packing_length", "cards"), ("fr/index", "entraînement", "fr/training")],
)
def test_the_search_finds_pages_of_both_languages_without_a_server(
    browser, site, start, word, page
):
    browser.look_like(width=1280, height=900, scheme="light")
    browser.open(site / f"{start}.html")
    found = wait_for(browser, _FOUND.replace("WORD", word))
    assert (site / f"{page}.html").as_posix() in found
    assert browser.complaints() == []
