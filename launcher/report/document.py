"""The report as one HTML file: no script, nothing from elsewhere, every figure from a record."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from contract.atomic_write import atomic_write
from contract.errors import UserError
from contract.recipe import Recipe
from contract.results.train import TrainingMetrics
from launcher.evaluate.intervals import Interval
from launcher.pipeline.finished_run import Run
from launcher.project import VERSION, shown, user_path
from launcher.report import pictures
from launcher.report.charts import Axis
from launcher.report.examples import held_out_examples, wrong_answers
from launcher.report.facts import Facts
from launcher.report.language import LANGUAGES, Language
from launcher.report.upkeep import REPORT

_TEMPLATES = Path(__file__).parent / "templates"
# By which a file is known to be a report, and may be written over.
_GENERATOR = "Affineur"
_BEGINNING_BYTES = 512
# Lines of a table, and rows by name, beyond which nobody reads on.
_MOST_LINES = 200
_MOST_NAMED = 50
# What no page may hold as it is: control characters have no look, halves of letters no UTF-8.
_UNSEEN = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}
_UNSEEN |= {0x7F: 0x2421, **dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000)], 0xFFFD)}


def report_run(name: str, *, output: str, language: str) -> Path:
    """Write the report of a run that a person names, and return where.

    Raises:
        UserError: there is no such run or language, or the place is not free for it.
    """
    spoken = Language.read(language)
    run = Run.named(name)
    path = user_path(output, "--output") if output else run.folder / REPORT
    if path.is_dir():
        path = path / REPORT
    _check_target(path)
    write_report(run, path, spoken)
    return path


def write_report(run: Run, path: Path, language: Language) -> None:
    """Write a run's report to a file, whole.

    Raises:
        UserError: another version of this project wrote one of the run's records.
    """
    atomic_write(path, render(Facts.of(run), language))


def written_language(path: Path) -> Language:
    """The language of the report that lies there; English where none does."""
    beginning = _beginning(path)
    codes = [code for code in LANGUAGES if f'<html lang="{code}">' in beginning]
    return Language.read(codes[0] if codes else LANGUAGES[0])


def render(facts: Facts, language: Language) -> str:
    """The document. The same facts are the same text."""

    def figure(value: float, form: str, of: str = "") -> Markup:
        # The value itself stands beside what is read, and where in the records it is from.
        source = Markup(' data-of="{}"').format(of) if of else ""
        text = getattr(language, form)(value)
        return Markup('<data value="{}"{}>{}</data>').format(repr(value), source, text)

    def interval(found: Interval, form: str, of: str) -> Markup:
        ends = [figure(end, "bound", f"{of}.{at}") for at, end in ((1, found.low), (2, found.high))]
        return Markup('{} <span class="interval">[{}, {}]</span>').format(
            figure(found.mean, form, f"{of}.0"), *ends
        )

    def widest(axis: Axis) -> int:
        return max(len(language.decimal(axis.label(tick), axis.digits)) for tick in axis.ticks)

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_seen,
        keep_trailing_newline=True,
    )
    environment.filters.update(integer=language.integer, json=_json)
    environment.globals.update(
        language=language,
        say=language.say,
        count=language.count,
        figure=figure,
        interval=interval,
        widest=widest,
    )
    recipe = facts.manifest.recipe
    text: str = environment.get_template("report.html.jinja").render(
        css=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        generator=f"{_GENERATOR} {VERSION}",
        facts=facts,
        manifest=facts.manifest,
        prepared=facts.prepared,
        trained=facts.trained,
        evaluation=facts.evaluation,
        base_name=_short_name(facts.manifest.base.source),
        data_name=_short_name(recipe.dataset_path),
        shell_name=shlex.quote(facts.model),
        recipe_values=_recipe_values(recipe),
        charts=pictures.charts(facts),
        legend=pictures.legend(facts, language),
        descriptions=pictures.descriptions(facts, language),
        memory=pictures.memory_bars(facts, language, figure),
        times=pictures.time_bars(facts, figure),
        whiskers=pictures.whisker_rows(facts.evaluation, language) if facts.evaluation else [],
        metrics=_table_lines(facts.metrics),
        examples=held_out_examples(facts),
        wrong_answers=wrong_answers(facts),
        materials={**facts.inputs, **facts.manifest.locks},
        most_named=_MOST_NAMED,
    )
    return text


def _check_target(path: Path) -> None:
    if not path.parent.is_dir():
        raise UserError.one("--output", f"{path.parent} is no folder", "Make it first: mkdir -p.")
    if (path.exists() or path.is_symlink()) and f'content="{_GENERATOR} ' not in _beginning(path):
        raise UserError.one(
            "--output", f"{shown(path)} exists and is no report", "Choose another name."
        )


def _beginning(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_BEGINNING_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _seen(value: object) -> object:
    """A text without what no page may hold; markup stays markup."""
    if isinstance(value, Markup):
        return Markup(str(value).translate(_UNSEEN))
    return value.translate(_UNSEEN) if isinstance(value, str) else value


def _short_name(source: str) -> str:
    """`demo.jsonl` of a path, `SmolLM2-135M-Instruct` of a repository."""
    return source.rstrip("/").rpartition("/")[2] or source


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _recipe_values(recipe: Recipe) -> list[tuple[str, str]]:
    values = sorted(recipe.model_dump(mode="json").items())
    return [(key, value if isinstance(value, str) else _json(value)) for key, value in values]


def _table_lines(metrics: tuple[TrainingMetrics, ...]) -> list[tuple[int, TrainingMetrics]]:
    """The lines that the table has, with their places in the file: evaluated ones first of all."""
    places = set(range(len(metrics)))
    if len(metrics) > _MOST_LINES:
        places = {round(at * (len(metrics) - 1) / (_MOST_LINES - 1)) for at in range(_MOST_LINES)}
        evaluated = [at for at, line in enumerate(metrics) if line.held_out_loss is not None]
        if len(evaluated) <= _MOST_LINES:
            places |= set(evaluated)
    return [(at, metrics[at]) for at in sorted(places)]
