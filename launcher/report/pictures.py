"""A run's pictures, and what each of them shows in words, for whoever does not see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from contract.results.train import TrainingMetrics, TrainResult
from launcher.evaluate.intervals import Interval
from launcher.evaluate.record import Evaluation
from launcher.report.charts import (
    Histogram,
    LineChart,
    Point,
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
    """A set's scores on the axis from 0 to 100, each by the name of its look, and in words."""

    name: str
    whiskers: tuple[tuple[str, Whisker], ...]
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
        loss=described_losses(facts.trained, language),
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
    return [
        whisker_row(
            result.set,
            {
                "base": (language.say("base"), result.base.score if result.base else None),
                "model": (language.say("model"), result.model.score),
            },
            language,
        )
        for result in evaluation.sets
    ]


def whisker_legend(evaluation: Evaluation, language: Language) -> list[tuple[str, str]]:
    """Whose scores they are, by the name of their look."""
    names = ("base", "model") if evaluation.base is not None else ("model",)
    return [(name, language.say(name)) for name in names]


def whisker_row(
    name: str, scores: Mapping[str, tuple[str, Interval | None]], language: Language
) -> WhiskerRow:
    """A set's scores, as far as they are known.

    Args:
        scores: by the name of its look, whose it is, and the score.
    """
    known = [(look, whose, score) for look, (whose, score) in scores.items() if score is not None]
    said = [
        language.say(
            "described_score",
            whose=whose,
            score=language.points(score.mean),
            low=language.bound(score.low),
            high=language.bound(score.high),
        )
        for _, whose, score in known
    ]
    return WhiskerRow(
        name,
        tuple((look, whisker(score)) for look, _, score in known),
        language.say("described_scores", set=name, scores=Markup("; ").join(said)),
    )


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


def training_curve(trained: TrainResult) -> list[Point]:
    """The training loss by step."""
    return [(float(point.step), point.loss) for point in trained.losses]


def held_out_curve(trained: TrainResult) -> list[Point]:
    """The held-out loss by step, from that of the base on."""
    held_out = [
        (float(point.step), point.held_out_loss)
        for point in trained.losses
        if point.held_out_loss is not None
    ]
    if held_out and trained.held_out.loss is not None:
        # Before the first step, the adapter adds nothing to the base.
        return [(0.0, trained.held_out.loss.base), *held_out]
    return held_out


def described_losses(trained: TrainResult, language: Language) -> Markup:
    """Both curves in words."""
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
    if held_out := held_out_curve(trained):
        first, last = (language.loss(held_out[at][1]) for at in (0, -1))
        said.append(language.say("described_held_out", first=first, last=last))
    return Markup(" ").join(said)


def _losses(facts: Facts) -> list[Series]:
    held_out = held_out_curve(facts.trained)
    kept = [point for point in held_out[1:] if point[0] == facts.trained.best_step]
    return [
        Series("training", training_curve(facts.trained)),
        Series("held-out", held_out, dotted=True),
        Series("kept", kept, dotted=True),
    ]


def _of_metrics(
    facts: Facts, name: str, value: Callable[[TrainingMetrics], float]
) -> LineChart | None:
    points = [(float(line.step), value(line)) for line in facts.metrics]
    # The axis begins at nothing: how far a rate falls is to be seen.
    return line_chart([Series(name, points)], from_zero=True)


def _described(values: Sequence[float], form: Callable[[float], str], language: Language) -> Markup:
    if not values:
        return Markup()
    first, last, least, most = map(form, (values[0], values[-1], min(values), max(values)))
    return language.say("described", first=first, last=last, least=least, most=most)
