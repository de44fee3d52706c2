"""A run's pictures, and what each of them shows in words, for whoever does not see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from contract.results.train import TrainingMetrics
from launcher.evaluate.record import Evaluation, SetResult
from launcher.report.charts import (
    Histogram,
    LineChart,
    Series,
    Whisker,
    histogram,
    line_chart,
    whisker,
)
from launcher.report.facts import Facts
from launcher.report.language import Language

# A value as the document writes it, and the place in the records that it is from.
Figure = Callable[[float, str, str], Markup]
# A name, the bar's share of the longest one, and what it says.
BarRow = tuple[str, float, Markup]


@dataclass(frozen=True)
class Charts:
    """What is drawn of a training; None where there is nothing to draw."""

    loss: LineChart | None
    learning_rate: LineChart | None
    tokens_per_s: LineChart | None
    lengths: Histogram | None


@dataclass(frozen=True)
class Descriptions:
    """What each of `Charts` shows."""

    loss: str
    learning_rate: str
    tokens_per_s: str
    lengths: str


@dataclass(frozen=True)
class WhiskerRow:
    """A set's scores on the axis from 0 to 100, and in words."""

    set: SetResult
    model: Whisker
    base: Whisker | None
    description: str


def charts(facts: Facts) -> Charts:
    """All of them."""
    return Charts(
        loss=line_chart(_losses(facts)),
        learning_rate=_of_metrics(facts, "learning-rate", lambda line: line.learning_rate),
        tokens_per_s=_of_metrics(facts, "tokens-per-s", lambda line: line.tokens_per_s),
        lengths=histogram(facts.prepared.lengths, facts.prepared.max_length),
    )


def legend(facts: Facts, language: Language) -> list[tuple[str, str]]:
    """The curves of the losses that are drawn, by the name that has their look."""
    names = {
        "training": language.say("training_loss"),
        "held-out": language.say("held_out_curve"),
        "kept": language.say("kept_curve", step=language.integer(facts.trained.best_step or 0)),
    }
    return [(one.name, names[one.name]) for one in _losses(facts) if one.points]


def descriptions(facts: Facts, language: Language) -> Descriptions:
    """The same in words."""
    lengths = facts.prepared.tokens
    return Descriptions(
        loss=_described_losses(facts, language),
        learning_rate=_described(
            [line.learning_rate for line in facts.metrics], language.general, language
        ),
        tokens_per_s=_described(
            [line.tokens_per_s for line in facts.metrics], language.rate, language
        ),
        lengths=language.count(
            "described_lengths",
            facts.prepared.rows,
            rows=language.integer(facts.prepared.rows),
            least=language.integer(lengths.min),
            most=language.integer(lengths.max),
            median=language.integer(lengths.median),
        ),
    )


def whisker_rows(evaluation: Evaluation, language: Language) -> list[WhiskerRow]:
    """A row for each set."""
    return [_whisker_row(result, language) for result in evaluation.sets]


def memory_bars(facts: Facts, language: Language, figure: Figure) -> list[BarRow]:
    """What was estimated, probed and measured; nothing without a measurement."""
    memory = facts.trained.memory
    if memory is None or memory.peak_bytes is None:
        return []
    found = {
        "estimate": memory.estimate_bytes,
        "probe": memory.probe_bytes,
        "peak": memory.peak_bytes,
    }
    known = {name: size for name, size in found.items() if size is not None}
    most = max(*known.values(), 1)
    return [
        (
            language.say(f"memory_{name}"),
            size / most,
            figure(size, "size", f"stages.train.result.memory.{name}_bytes"),
        )
        for name, size in known.items()
    ]


def time_bars(facts: Facts, figure: Figure) -> list[BarRow]:
    """What each stage took."""
    records = facts.manifest.stages
    longest = max((record.seconds for record in records), default=0.0) or 1.0
    return [
        (
            record.stage,
            record.seconds / longest,
            figure(record.seconds, "duration", f"stages.{record.stage}.seconds"),
        )
        for record in records
    ]


def _losses(facts: Facts) -> list[Series]:
    losses = facts.trained.losses
    held_out = [
        (float(point.step), point.held_out_loss)
        for point in losses
        if point.held_out_loss is not None
    ]
    kept = [point for point in held_out if point[0] == facts.trained.best_step]
    if held_out and facts.trained.held_out.loss is not None:
        # Before the first step, the adapter adds nothing to the base.
        held_out = [(0.0, facts.trained.held_out.loss.base), *held_out]
    return [
        Series("training", [(float(point.step), point.loss) for point in losses]),
        Series("held-out", held_out, dotted=True),
        Series("kept", kept, dotted=True),
    ]


def _of_metrics(
    facts: Facts, name: str, value: Callable[[TrainingMetrics], float]
) -> LineChart | None:
    points = [(float(line.step), value(line)) for line in facts.metrics]
    # The axis begins at nothing: how far a rate falls is to be seen.
    return line_chart([Series(name, points)], from_zero=True)


def _described_losses(facts: Facts, language: Language) -> Markup:
    trained = facts.trained
    if not trained.losses:
        return Markup()
    said = [
        language.count(
            "described_losses",
            trained.steps,
            first=language.loss(trained.losses[0].loss),
            last=language.loss(trained.losses[-1].loss),
            steps=language.integer(trained.steps),
        )
    ]
    if held_out := next((one.points for one in _losses(facts) if one.name == "held-out"), ()):
        first, last = (language.loss(held_out[at][1]) for at in (0, -1))
        said.append(language.say("described_held_out", first=first, last=last))
    return Markup(" ").join(said)


def _described(values: Sequence[float], form: Callable[[float], str], language: Language) -> Markup:
    if not values:
        return Markup()
    first, last, least, most = map(form, (values[0], values[-1], min(values), max(values)))
    return language.say("described", first=first, last=last, least=least, most=most)


def _whisker_row(result: SetResult, language: Language) -> WhiskerRow:
    model = result.model.score
    words = {
        "set": result.set,
        "model": language.points(model.mean),
        "low": language.bound(model.low),
        "high": language.bound(model.high),
    }
    if result.base is None:
        said = language.say("described_scores", **words)
        return WhiskerRow(result, whisker(model), None, said)
    base = result.base.score
    said = language.say(
        "described_scores_beside",
        **words,
        base=language.points(base.mean),
        base_low=language.bound(base.low),
        base_high=language.bound(base.high),
    )
    return WhiskerRow(result, whisker(model), whisker(base), said)
