"""A report and a comparison in a real browser: desk and phone, light and dark, in both languages.
In print as well.
Screenshots lie in the folder that AFFINEUR_SCREENSHOTS names, where it names one.
"""

import os
from pathlib import Path

import pytest

from launcher.report.comparison_document import compare_on_page
from launcher.report.document import write_report
from launcher.report.language import LANGUAGES, Language
from tests.launcher.made_runs import compared_pair
from tests.report_runs import HOSTILE, make_run

# Elements whose text is cut off or runs over the edge, other than in a box that scrolls.
_OUTSIDE = """
[...document.querySelectorAll("body *")].filter(e => {
  if (e.closest(".scroll, .text, .skip, .heard, head, .digests thead")) return false;
  if (e.closest("svg") && e.tagName !== "svg") return false;
  const box = e.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(e => e.tagName + "." + e.getAttribute("class") + ": " + e.textContent.slice(0, 60))
"""
# Pairs of texts beside each other of which one covers the other.
_COVERED = """
[".ticks", ".verdict", ".legend", ".facts > div", ".answers", "nav ol", ".bars tr", ".rows",
 ".numbers tr", ".checks tr", ".sides tr", ".verdict > div"].flatMap(
  group => [...document.querySelectorAll(group)].flatMap(parent => {
    const found = [...parent.children].map(e => [e, e.getBoundingClientRect()])
      .filter(([e, box]) => box.width && box.height && !e.matches(".heard"));
    return found.flatMap(([a, one], at) => found.slice(at + 1).filter(([b, other]) =>
      one.left < other.right - 1 && other.left < one.right - 1 &&
      one.top < other.bottom - 1 && other.top < one.bottom - 1
    ).map(([b]) => group + ": " + a.textContent.slice(0, 40) + " | " + b.textContent.slice(0, 40)));
  }))
"""
_OPEN_ALL = "document.querySelectorAll('details').forEach(e => { e.open = true; })"


@pytest.fixture(scope="module", params=["whole", "bare", "compared"])
def pages(request, tmp_path_factory):
    """A page in each language: of a run with all that there can be, or with the least; of two."""
    folder = tmp_path_factory.mktemp(request.param)
    files = {code: folder / f"{request.param}-{code}.html" for code in LANGUAGES}
    if request.param == "compared":
        pair = compared_pair(folder, words=f" {HOSTILE}")
        for code, file in files.items():
            compare_on_page(*(str(r.folder) for r in pair), output=str(file), language=code)
    else:
        run = make_run(folder / "run", whole=request.param == "whole")
        for code, file in files.items():
            write_report(run, file, Language.read(code))
    return files


def keep(browser, name):
    if folder := os.environ.get("AFFINEUR_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"{name}.png")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_nothing_is_cut_off_or_covered_and_nothing_else_is_loaded(
    browser, pages, width, scheme, language
):
    page = pages[language]
    browser.look_like(width=width, height=844, scheme=scheme)
    browser.open(page)
    keep(browser, f"{page.stem}-{width}-{scheme}")
    for state in ("closed", "open"):
        # A phone makes room for what is too wide: `innerWidth` alone would say nothing.
        assert browser.run("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
        assert browser.run(_OUTSIDE) == [], state
        assert browser.run(_COVERED) == [], state
        browser.run(_OPEN_ALL)
    keep(browser, f"{page.stem}-{width}-{scheme}-open")
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []
    # The scheme was taken, and the text is on a ground that fits it.
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    light = sum(int(part) for part in ground.removeprefix("rgb(").rstrip(")").split(",")) > 384
    assert light == (scheme == "light")


def test_the_page_runs_no_script_that_the_data_bring(browser, pages):
    browser.look_like(width=1280, height=844, scheme="light")
    browser.open(pages["en"])
    assert browser.run("document.scripts.length") == 0
    assert browser.run("document.images.length") == 0
    # What a script would have to get past, if one got in.
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'window.ran = true'}))"
    )
    assert browser.run("window.ran") is None


def test_pictures_have_a_name_for_whoever_does_not_see_them(browser, pages):
    browser.look_like(width=1280, height=844, scheme="light")
    browser.open(pages["fr"])
    nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
    named = [
        node["name"]["value"]
        for node in nodes
        if node.get("role", {}).get("value") == "image" and not node["ignored"]
    ]
    assert len(named) == browser.run("document.querySelectorAll('svg').length") >= 2
    assert all(named)


def test_a_keyboard_reaches_what_scrolls(browser, pages):
    browser.look_like(width=390, height=844, scheme="light")
    browser.open(pages["en"])
    browser.run(_OPEN_ALL)
    unreached = browser.run(
        "[...document.querySelectorAll('body *')].filter(e => "
        "(e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1) && "
        "/auto|scroll/.test(getComputedStyle(e).overflow) && e.tabIndex < 0).length"
    )
    assert unreached == 0


def test_in_print_it_is_black_on_white_and_whole(browser, pages, tmp_path):
    browser.look_like(width=794, height=1123, scheme="dark", media="print")
    browser.open(pages["en"])
    colours = browser.run(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert colours == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    assert browser.run(_OUTSIDE) == []
    cut = browser.run(
        "[...document.querySelectorAll('.text')]"
        ".filter(e => e.scrollHeight > e.clientHeight + 1).length"
    )
    assert cut == 0
    browser.print_to(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    if folder := os.environ.get("AFFINEUR_SCREENSHOTS"):
        name = f"{pages['en'].stem}.pdf"
        (Path(folder) / name).write_bytes((tmp_path / "report.pdf").read_bytes())
