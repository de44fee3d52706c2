"""A report says what the run's records say, in each language, and holds whatever the data hold."""

import json
import re
from itertools import pairwise

import pytest

from contract.errors import UserError
from launcher.display import Display
from launcher.report.document import render, report_run, write_report, written_language
from launcher.report.facts import Facts
from launcher.report.language import LANGUAGES, Language
from launcher.report.page import TEMPLATES
from launcher.report.upkeep import REPORT, report_kept
from launcher.runtime import dependency_locks
from tests.conftest import invoke
from tests.html_page import Page
from tests.report_runs import HOSTILE, evaluation, make_run, proof

# The elements that the hand-made run's texts would make, and the templates never do.
_THEIRS = {"b", "em", "i", "img", "script"}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "whole")


@pytest.fixture
def bare(tmp_path):
    """A run that nobody evaluated, proved or decided on, and that held no rows out."""
    return make_run(tmp_path / "bare", whole=False)


def page(run, language="en"):
    return Page(render(Facts.of(run), Language.read(language)))


def records(run):
    """The records as JSON has them, by the places that the report names."""

    def parsed(name):
        return json.loads((run.folder / name).read_text())

    manifest = parsed("manifest.json")
    manifest["stages"] = {one["stage"]: one for one in manifest["stages"]}
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    return {
        **manifest,
        "metrics": [json.loads(line) for line in lines],
        "evaluation": parsed("evaluation.json"),
    }


def at(value, place):
    for part in place.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


# Every figure that must be there, whatever else is.
_DEMANDED = {
    "stages.train.result.held_out.loss.base": ("1.119", "1,119"),
    "stages.train.result.held_out.loss.tuned": ("0.096", "0,096"),
    "stages.train.result.held_out.exact_match.base": ("1.6%", "1,6\u202f%"),
    "stages.train.result.held_out.exact_match.tuned": ("86.7%", "86,7\u202f%"),
    "stages.train.result.held_out.held_out_rows": ("122", "122"),
    "stages.train.result.memory.estimate_bytes": ("1.1\u00a0GB", "1,1\u00a0Go"),
    "stages.train.result.memory.probe_bytes": ("1.0\u00a0GB", "1,0\u00a0Go"),
    "stages.train.result.memory.peak_bytes": ("999.3\u00a0MB", "999,3\u00a0Mo"),
    "stages.train.seconds": ("4\u00a0min 48\u00a0s", "4\u00a0min 48\u00a0s"),
    "stages.prepare.result.rows": ("558", "558"),
    "stages.prepare.result.train": ("436", "436"),
    "stages.prepare.result.tokens.p95": ("132", "132"),
    "recipe.learning_rate": ("0.003", "0,003"),
    "metrics.0.learning_rate": ("1.97\u202f×\u202f10⁻⁴", "1,97\u202f×\u202f10⁻⁴"),
    "metrics.11.tokens": ("22,260", "22\u202f260"),
    "evaluation.sets.0.model.score.0": ("90.6", "90,6"),
    "evaluation.sets.0.difference.0": ("+90.6", "+90,6"),
    "evaluation.sets.1.rows": ("32", "32"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_figure_is_the_records(run, language):
    truth = records(run)
    figures = page(run, language).all("data")
    placed = {one["@data-of"]: one for one in figures if "@data-of" in one}
    for place, one in placed.items():
        assert float(one["@value"]) == at(truth, place), place
    shown = {place: placed[place]["text"] for place in _DEMANDED}
    assert shown == {place: form[LANGUAGES.index(language)] for place, form in _DEMANDED.items()}
    # Each line of metrics, and each score with both ends of its interval.
    for number, line in enumerate(truth["metrics"]):
        for key, value in line.items():
            assert value is None or f"metrics.{number}.{key}" in placed
    for number in range(2):
        for part in ("model.score", "base.score", "difference"):
            for end in range(3):
                assert f"evaluation.sets.{number}.{part}.{end}" in placed
    # The others are sums and counts: of the stages' seconds, of cut rows and tokens.
    assert [float(one["@value"]) for one in figures if "@data-of" not in one] == [
        2.0,
        216.0,
        1.0,
        pytest.approx(395.35),
    ]


def test_no_markup_of_the_data_is_any_of_the_page(run):
    found = page(run)
    assert not _THEIRS & {one["tag"] for one in found.elements}
    assert not [name for one in found.elements for name in one if name.startswith("@on")]
    seen = HOSTILE.replace("\x00", "\u2400").replace("\x1b", "\u241b")
    texts = [one["text"] for one in found.all("div") if "text" in one.get("@class", "").split()]
    assert texts.count(seen) == 3
    assert f"{seen} <b>" in texts
    assert "{{ 7*7 }}" in "".join(texts)
    assert texts.count("(no answer)") == 1
    assert "<i>:9" in found.section("data")


def test_half_a_letter_is_shown_and_written(run, tmp_path):
    facts = Facts.of(run)
    recipe = facts.manifest.recipe.model_copy(update={"system_prompt": "half \ud83e of it"})
    manifest = facts.manifest.model_copy(update={"recipe": recipe})
    text = render(Facts(**{**vars(facts), "manifest": manifest}), Language.read("en"))
    assert "half \ufffd of it" in text
    assert text.encode()


def test_the_page_loads_nothing_and_runs_nothing(run):
    text = render(Facts.of(run), Language.read("en"))
    found = Page(text)
    (policy,) = (one["@content"] for one in found.all("meta") if "@http-equiv" in one)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert found.all("link") == found.all("script") == found.all("iframe") == []
    assert not [one for one in found.elements if "@src" in one or "@srcset" in one]
    (css,) = (one["text"] for one in found.all("style"))
    assert "url(" not in css
    assert "@import" not in css
    ids = [one["@id"] for one in found.elements if "@id" in one]
    assert len(ids) == len(set(ids))
    for link in found.all("a"):
        assert link["@href"].removeprefix("#") in ids
        assert link["@href"].startswith("#")


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_can_be_read_without_being_seen(run, bare, language):
    for one in (run, bare):
        found = page(one, language)
        assert [html["@lang"] for html in found.all("html")] == [language]
        levels = [int(e["tag"][1]) for e in found.elements if re.fullmatch(r"h[1-6]", e["tag"])]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(later <= before + 1 for before, later in pairwise(levels))
        ids = {e["@id"]: e for e in found.elements if "@id" in e}
        for picture in found.all("svg"):
            assert picture["@role"] == "img"
            named = [ids[name]["text"] for name in picture.get("@aria-labelledby", "").split()]
            assert all(named or [picture.get("@aria-label")])
        for e in found.elements:
            if e["tag"] == "th":
                assert e["@scope"] in ("col", "row")
            if "scroll" in e.get("@class", ""):
                assert (e["@tabindex"], e["@role"]) == ("0", "region")
                assert e["@aria-label"]


def test_what_a_run_lacks_is_said_with_the_command_that_makes_it(bare):
    found = page(bare)
    for name, command in {
        "examples": "./invoke train --set held_out_answers=60",
        "scores": "./invoke evaluate --model affineur-demo",
        "proof": "./invoke import --model affineur-demo",
        "gate": "./invoke evaluate --model affineur-demo",
    }.items():
        assert found.section(name).endswith(command)
        assert len(found.section(name)) < 200
    (verdict,) = found.all("dl", class_="verdict")
    assert "not verified yet" in verdict["text"]
    assert "no rows were held out" in verdict["text"]
    bare.write_manifest(bare.manifest)
    evaluation(bare, outcome=None).write(bare.folder / "evaluation.json")
    assert page(bare).section("gate").endswith("./invoke gate --model affineur-demo")


@pytest.mark.parametrize(
    ("passed", "of", "said"),
    [
        (True, None, "Served as trained verified"),
        (False, None, "Served as trained failed"),
        (True, "another", "Served as trained not of this model"),
    ],
)
def test_a_proof_counts_for_the_model_that_the_run_holds_now(run, passed, of, said):
    run.record_verification(proof(run, passed=passed, of=of))
    found = page(run)
    (verdict,) = found.all("dl", class_="verdict")
    assert said in " ".join(verdict["text"].split())
    outdated = "of an earlier model of this run" in found.section("proof")
    assert outdated == (of is not None)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("passed", "Decision: ship."),
        ("failed", "Decision: do not ship."),
        ("inconclusive", "Decision: do not ship; the evaluation is inconclusive."),
    ],
)
def test_the_gates_decision_is_said(run, outcome, said):
    evaluation(run, outcome=outcome).write(run.folder / "evaluation.json")
    assert said in page(run).section("gate")


def test_scores_of_an_earlier_model_are_said_to_be_that(run):
    assert "of an earlier model" not in page(run).section("scores")
    found = evaluation(run)
    other = found.model.model_copy(update={"model_digest": "another"})
    found.model_copy(update={"model": other}).write(run.folder / "evaluation.json")
    assert "of an earlier model" in page(run).section("scores")


def test_a_lock_that_moved_on_lists_no_packages(run):
    text = page(run).section("materials")
    pinned = dependency_locks.pinned("rtx")
    assert f"{len(pinned)} packages of rtx.lock" in text
    assert f"torch {pinned['torch']}" in text
    assert "llama-cpp.lock is another one here by now" in text


def test_the_same_records_are_the_same_bytes(run, tmp_path):
    for name in ("one.html", "two.html"):
        write_report(run, tmp_path / name, Language.read("en"))
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_long_training_makes_a_page_that_stays_light(tmp_path):
    run = make_run(tmp_path / "long", steps=50_000, hostile=False)
    text = render(Facts.of(run), Language.read("en"))
    assert len(text) < 400_000
    assert "of 10,000 lines; metrics.jsonl has them all" in text


def test_a_training_of_one_line_is_drawn(tmp_path):
    found = page(make_run(tmp_path / "short", steps=5))
    assert len([one for one in found.all("path") if "dots" in one["@class"]]) >= 3
    assert not [one for one in found.all("path") if re.search("nan|inf", one["@d"])]


def test_both_languages_say_the_same_things():
    english, french = (Language.read(code).sentences for code in LANGUAGES)
    assert english.keys() == french.keys()
    for key, sentence in english.items():
        places = [set(re.findall(r"{(\w+)", text)) for text in (sentence, french[key])]
        assert places[0] == places[1], key
    templates = TEMPLATES.glob("*.jinja")
    code = "".join(path.read_text() for path in [*templates, *TEMPLATES.parent.glob("*.py")])
    used = set(re.findall(r'["\'](\w+)["\']', code))
    families = tuple(re.findall(r'\(f?["\'](\w+_)["\'{]', code))
    unused = {
        key
        for key in english
        if not {key, key.removesuffix("_one"), key.removesuffix("_other")} & used
        and not key.startswith(families)
    }
    assert unused == set()


@pytest.mark.parametrize(
    ("form", "value", "english", "french"),
    [
        ("integer", 1234567, "1,234,567", "1\u202f234\u202f567"),
        ("loss", -0.0004, "0.000", "0,000"),
        ("loss", -1.5, "\u22121.500", "\u22121,500"),
        ("share", 0.9, "90.0%", "90,0\u202f%"),
        ("gain", 0.846, "+84.6", "+84,6"),
        ("gain", -0.062, "\u22126.2", "\u22126,2"),
        ("general", 3.0, "3", "3"),
        ("general", 0.0125, "0.0125", "0,0125"),
        ("general", 200.0, "200", "200"),
        ("general", 1.0866e-7, "1.09\u202f×\u202f10⁻⁷", "1,09\u202f×\u202f10⁻⁷"),
        ("general", 0.0, "0", "0"),
        ("general", float("nan"), "NaN", "NaN"),
        ("size", 999, "999\u00a0B", "999\u00a0o"),
        ("size", 1_083_524_128, "1.1\u00a0GB", "1,1\u00a0Go"),
        ("duration", 0.44, "0.4\u00a0s", "0,4\u00a0s"),
        ("duration", 185.2, "3\u00a0min 05\u00a0s", "3\u00a0min 05\u00a0s"),
        ("duration", 7_800.0, "2\u00a0h 10\u00a0min", "2\u00a0h 10\u00a0min"),
        (
            "date",
            "2026-08-01T23:05:00+02:00",
            "1 August 2026, 21:05 UTC",
            "1 août 2026, 21\u202fh\u202f05 UTC",
        ),
        ("date", "yesterday", "yesterday", "yesterday"),
    ],
)
def test_numbers_are_written_as_the_language_has_them(form, value, english, french):
    found = [getattr(Language.read(code), form)(value) for code in LANGUAGES]
    assert found == [english, french]


def test_nothing_and_one_are_counted_as_the_language_counts():
    said = {
        code: [Language.read(code).count("cores", n, cores=n) for n in (0, 1, 2)]
        for code in LANGUAGES
    }
    assert said == {
        "en": ["0 cores", "1 core", "2 cores"],
        "fr": ["0 cœur", "1 cœur", "2 cœurs"],
    }


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_and_ground_differ_enough_in_light_dark_and_print():
    css = (TEMPLATES / "report.css").read_text()
    schemes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root {(.*?)}", css, re.DOTALL)
    ]
    assert len(schemes) == 3
    for scheme in schemes:
        for ground in ("paper", "panel", "mark"):
            for ink in ("ink", *(() if ground == "mark" else ("soft", "accent", "bad"))):
                light, dark = sorted(
                    (luminance(scheme[ink]), luminance(scheme[ground])), reverse=True
                )
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground, scheme)


def test_a_report_is_written_where_a_person_wants_it(run, tmp_path):
    assert report_run(str(run.folder), output="", language="fr") == run.folder / REPORT
    assert '<html lang="fr">' in (run.folder / REPORT).read_text()
    assert report_run(str(run.folder), output=str(tmp_path), language="en") == tmp_path / REPORT
    # A report is written over, and nothing else is.
    report_run(str(run.folder), output=str(tmp_path / REPORT), language="fr")
    assert written_language(tmp_path / REPORT).code == "fr"
    (tmp_path / "thesis.html").write_text("mine")
    for output, said in {
        tmp_path / "thesis.html": "exists and is no report. Choose another name.",
        tmp_path / "no" / "r.html": "is no folder. Make it first: mkdir -p.",
    }.items():
        with pytest.raises(UserError) as refused:
            report_run(str(run.folder), output=str(output), language="en")
        assert said in refused.value.text()
    assert (tmp_path / "thesis.html").read_text() == "mine"


def test_a_manifest_without_its_run_is_a_sentence(run):
    (run.folder / "serving.json").unlink()
    with pytest.raises(UserError, match=r"serving\.json: does not exist\. Run \./invoke train"):
        report_run(str(run.folder / "manifest.json"), output="", language="en")


def test_a_language_that_it_is_not_written_in_is_refused(run):
    with pytest.raises(UserError, match=r"no language 'de'.* Known: en, fr"):
        report_run(str(run.folder), output="", language="de")


def test_it_is_kept_true_in_its_language_whatever_a_command_adds(run):
    report_run(str(run.folder), output="", language="fr")
    path = run.folder / REPORT

    def prove_otherwise():
        run.record_verification(proof(run, passed=False))
        raise UserError.one("Ollama", "is not the model that was trained")

    with pytest.raises(UserError), report_kept(run, Display(quiet=True)):
        prove_otherwise()
    text = path.read_text()
    assert '<html lang="fr">' in text
    assert '<div class="failed"><dt>Servi tel qu’entraîné' in text
    with report_kept(None, Display(quiet=True)):
        pass


def test_what_keeps_it_from_being_written_is_a_note(run, capsys):
    report_run(str(run.folder), output="", language="en")
    (run.folder / "metrics.jsonl").write_text("{}\n")
    with report_kept(run, Display()):
        pass
    said = " ".join(capsys.readouterr().err.split())
    assert "the report could not be written" in said
    assert "metrics.jsonl" in said
    assert f"./invoke report {run.folder}" in said
    # The one of before would no longer hold.
    assert not (run.folder / REPORT).exists()


def test_a_training_ends_by_naming_its_report(smoke_run):
    said = smoke_run.shown.splitlines()[-1]
    name = smoke_run.folder.name
    assert said == f"The report, for any browser: data/models/affineur-smoke/{name}/report.html"
    text = (smoke_run.folder / REPORT).read_text()
    loss = smoke_run.manifest.stages[2].result["held_out"]["loss"]
    assert f'value="{loss["tuned"]!r}"' in text
    done = invoke(smoke_run.project, "report", "affineur-smoke", "--language", "fr")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"data/models/affineur-smoke/{name}/report.html\n"
    assert '<html lang="fr">' in (smoke_run.folder / REPORT).read_text()
    unknown = invoke(smoke_run.project, "report", "nobody")
    assert unknown.returncode == 2
    assert "RUN: nobody has no finished run here" in unknown.stderr
