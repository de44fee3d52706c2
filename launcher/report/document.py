"""The report as one HTML file: no script, nothing from elsewhere, every figure from a record."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from contract.atomic_write import atomic_write
from contract.recipe import Recipe
from contract.results.train import TrainingMetrics
from launcher.pipeline.finished_run import Run
from launcher.project import user_path
from launcher.report import pictures
from launcher.report.examples import held_out_examples, wrong_answers
from launcher.report.facts import Facts
from launcher.report.language import LANGUAGES, Language
from launcher.report.page import Page, beginning, check_place
from launcher.report.upkeep import REPORT

# Lines of a table, and rows by name, beyond which nobody reads on.
_MOST_LINES = 200
_MOST_NAMED = 50


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
    check_place(path, "report")
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
    text = beginning(path)
    codes = [code for code in LANGUAGES if f'<html lang="{code}">' in text]
    return Language.read(codes[0] if codes else LANGUAGES[0])


def render(facts: Facts, language: Language) -> str:
    """The document. The same facts are the same text."""
    page = Page("report", language)
    recipe = facts.manifest.recipe
    return page.render(
        "report.html.jinja",
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
        memory=pictures.memory_bars(facts, language, page.figure),
        times=pictures.time_bars(facts, page.figure),
        whiskers=pictures.whisker_rows(facts.evaluation, language) if facts.evaluation else [],
        whisker_legend=(
            pictures.whisker_legend(facts.evaluation, language) if facts.evaluation else []
        ),
        metrics=_table_lines(facts.metrics),
        examples=held_out_examples(facts),
        wrong_answers=wrong_answers(facts),
        materials={**facts.inputs, **facts.manifest.locks},
        most_named=_MOST_NAMED,
    )


def _short_name(source: str) -> str:
    """`demo.jsonl` of a path, `SmolLM2-135M-Instruct` of a repository."""
    return source.rstrip("/").rpartition("/")[2] or source


def _recipe_values(recipe: Recipe) -> list[tuple[str, str]]:
    values = sorted(recipe.model_dump(mode="json").items())
    return [
        (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for key, value in values
    ]


def _table_lines(metrics: tuple[TrainingMetrics, ...]) -> list[tuple[int, TrainingMetrics]]:
    """The lines that the table has, with their places in the file: evaluated ones first of all."""
    places = set(range(len(metrics)))
    if len(metrics) > _MOST_LINES:
        places = {round(at * (len(metrics) - 1) / (_MOST_LINES - 1)) for at in range(_MOST_LINES)}
        evaluated = [at for at, line in enumerate(metrics) if line.held_out_loss is not None]
        if len(evaluated) <= _MOST_LINES:
            places |= set(evaluated)
    return [(at, metrics[at]) for at in sorted(places)]
