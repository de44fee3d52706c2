"""The page of a comparison says what the comparison says, in each language."""

import re
from itertools import pairwise

import pytest

from contract import paths
from contract.errors import UserError
from contract.manifest import Manifest
from launcher.pipeline.finished_run import Run
from launcher.report.comparison_document import compare_on_page, render
from launcher.report.language import LANGUAGES, Language
from launcher.runs.comparison import compare
from tests.conftest import invoke
from tests.html_page import Page
from tests.launcher.made_runs import (
    compared_pair,
    evaluate,
    make_run,
)


@pytest.fixture
def runs(models):
    return compared_pair(models)


def page(runs, language="en"):
    found = compare(*runs)
    text = render(found, runs, ("m@aaaa", "m@bb bb"), Language.read(language))
    return Page(text), found


def at(value, place):
    for part in place.split("."):
        value = value[int(part)] if isinstance(value, list | tuple) else value[part]
    return value


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_figure_is_the_comparisons(runs, language):
    shown, found = page(runs, language)
    truth = found.model_dump(mode="json")
    placed = {one["@data-of"]: one for one in shown.all("data") if "@data-of" in one}
    for place, one in placed.items():
        assert float(one["@value"]) == at(truth, place), place
    for part in ("results", "costs"):
        for number, one in enumerate(truth[part]):
            for side in "ab":
                assert (f"{part}.{number}.{side}" in placed) == (one[side] is not None)
    for number, one in enumerate(truth["sets"]):
        for side in ("a", "b", "difference"):
            assert (f"sets.{number}.{side}.0" in placed) == (one[side] is not None)
    assert {"rows.0.both", "rows.1.only_b", "same_outputs"} <= placed.keys()
    tuned = [one["name"] for one in truth["results"]].index("held-out loss, tuned")
    assert placed[f"results.{tuned}.b"]["text"] == {"en": "0.75", "fr": "0,75"}[language]


def test_what_differs_is_said_first_and_named(runs):
    shown, found = page(runs)
    (lede,) = shown.all("p", class_="lede")
    assert lede["text"] == "In the recipe, learning_rate differs."
    made = shown.section("made")
    assert "learning_rate 0.002 0.001" in made
    assert "code: prepare, train differs" in made
    assert "the dataset dddddddddddd eeeeeeeeeeee" in made
    assert "Trained on 2 1 1" in made
    # 2 of 5 of the evaluation, 1 of 2 examples, 1 question of the reference.
    assert (len(found.answers.changed), sum(found.answers.compared.values())) == (4, 8)
    (verdict,) = shown.all("dl", class_="verdict")
    said = " ".join(verdict["text"].split())
    assert "Held-out loss 0.500 → then 0.750" in said
    assert "Changed answers 4 of 8 that both gave" in said
    assert "Scores of B 0 better, 0 worse of 1 evaluation set" in said


def test_answers_stand_by_what_became_of_their_score(runs):
    shown, _ = page(runs)
    heads = [one["text"] for one in shown.all("h3")]
    assert heads == [
        "Better in B: 1",
        "Worse in B: 2",
        "Otherwise, with the same score or none: 1",
    ]
    answers = shown.section("answers")
    assert "Evaluation: 2 of 5" in answers
    better = " ".join(shown.all("article")[0]["text"].split())
    assert better == (
        "sort: sort.jsonl:5 Question: q4 Expecteda A b Differs throughout · 0 of 100 "
        "B a As expected, letter for letter · 100 of 100"
    )
    # Nobody knows the right answer: no state and no score.
    assert shown.all("article")[-1]["text"].split() == ["Question:", "Wien?", "Ax", "By"]


def test_a_long_list_ends_with_the_command_that_has_all(models):
    a, b = (Run(make_run(models, "m", key)) for key in ("aaaa", "bbbb"))
    evaluate(a.folder, {f"q{n}": ("a", "a") for n in range(70)})
    evaluate(b.folder, {f"q{n}": ("a", "b") for n in range(70)})
    shown, _ = page((a, b))
    assert len(shown.all("article")) == 20
    assert "and 50 more ./invoke compare m@aaaa 'm@bb bb' --json" in shown.section("answers")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {},
            "Nothing differs but sizes and times: recipe, inputs, files and answers are the same.",
        ),
        (
            {"versions": {"torch": "2.1"}},
            "The recipe is the same; what it was used on, or with, is",
        ),
    ],
)
def test_what_is_the_same_is_said(models, changed, said):
    runs = Run(make_run(models, "m", "aaaa")), Run(make_run(models, "m", "bbbb", **changed))
    shown, _ = page(runs)
    (lede,) = shown.all("p", class_="lede")
    assert lede["text"].startswith(said)
    assert "The recipe is the same." in shown.section("made")
    # Rows, scores and a reference are not there, which is said as well.
    assert "The rows were not compared" in shown.section("made")
    assert "Neither model was evaluated" in shown.section("scores")
    assert "0 of 2" in shown.section("answers")


def test_a_training_that_this_version_cannot_read_leaves_the_rest(models, runs):
    a, b = runs
    stages = [
        one.model_copy(update={"result": {}}) if one.stage == "train" else one
        for one in b.manifest.stages
    ]
    Run(b.folder).write_manifest(Manifest(**{**dict(b.manifest), "stages": stages}))
    shown, _ = page((a, Run(b.folder)))
    assert "A, training" in shown.section("results")
    assert "B, training" not in shown.section("results")


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_loads_nothing_and_can_be_read_without_being_seen(runs, language):
    shown, _ = page(runs, language)
    assert [html["@lang"] for html in shown.all("html")] == [language]
    assert shown.all("link") == shown.all("script") == shown.all("img") == []
    (policy,) = (one["@content"] for one in shown.all("meta") if "@http-equiv" in one)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    ids = [one["@id"] for one in shown.elements if "@id" in one]
    assert len(ids) == len(set(ids))
    assert {link["@href"].removeprefix("#") for link in shown.all("a")} <= set(ids)
    levels = [int(e["tag"][1]) for e in shown.elements if re.fullmatch(r"h[1-6]", e["tag"])]
    assert all(later <= before + 1 for before, later in pairwise(levels))
    for picture in shown.all("svg"):
        named = [
            one["text"]
            for name in picture.get("@aria-labelledby", "").split()
            for one in shown.elements
            if one.get("@id") == name
        ]
        assert all(named or [picture.get("@aria-label")])


def test_in_french_nothing_of_the_page_is_english(runs):
    shown, _ = page(runs, "fr")
    text = " ".join(shown.section(name) for name in ("made", "results", "files", "costs"))
    for word in ("the ", "loss", "Steps", "differs", "step", "run"):
        assert word not in text, word


def test_it_is_written_where_a_person_wants_it(runs, tmp_path):
    names = [str(run.folder) for run in runs]
    found, file = compare_on_page(*names, output=str(tmp_path), language="fr")
    assert file == tmp_path / "comparison.html"
    assert found.recipe
    before = file.read_bytes()
    assert b'<html lang="fr">' in before
    # The same again is the same to the byte.
    assert compare_on_page(*names, output=str(file), language="fr")[1].read_bytes() == before
    (tmp_path / "report.html").write_text('<meta name="generator" content="Affineur report 0.1.0">')
    with pytest.raises(UserError, match=r"report\.html exists and is no comparison"):
        compare_on_page(*names, output=str(tmp_path / "report.html"), language="fr")
    with pytest.raises(UserError, match=r"no is no folder\. Make it first: mkdir -p\."):
        compare_on_page(*names, output=str(tmp_path / "no" / "a.html"), language="en")
    with pytest.raises(UserError, match="no language 'de'"):
        compare_on_page(*names, output=str(file), language="de")


def test_the_command_writes_it_beside_what_it_prints(clone, tmp_path):
    models = clone / "data" / "models"
    make_run(models, "paged", "aaaa", settings=["learning_rate=0.002"])
    make_run(models, "paged", "bbbb", settings=["learning_rate=0.001"], day=2)
    ran = invoke(clone, "compare", "paged@aa", "paged", "--output", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "learning_rate" in ran.stdout
    assert f"comparison: {tmp_path / 'comparison.html'}" in ran.stderr.replace("\n", "")
    assert "./invoke compare paged@aa paged" in (tmp_path / "comparison.html").read_text()
    refused = invoke(clone, "compare", "paged@aa", "paged", "--language", "fr")
    assert refused.returncode == 2
    assert "--language: is that of the page. Name its file: --output FILE." in refused.stderr


def test_a_real_run_beside_its_copy_is_drawn(smoke_run, run_copy):
    runs = Run(smoke_run.folder), Run(run_copy)
    asked = runs[1].folder / paths.PREPARED_TRAIN
    asked.write_text("".join(asked.read_text().splitlines(keepends=True)[1:]))
    shown, found = page(runs)
    assert found.rows[0].only_a == 1
    curves = [one["@class"] for one in shown.all("path") if "curve" in one["@class"]]
    assert curves == ["curve a", "curve a-held-out", "curve b", "curve b-held-out"]
