"""What each stage finds out: made by the trainer, sent as an event, kept in the stage's record.

The launcher checks a result against its stage's type when the stage ends, so that an unknown or a
missing key is found then and there.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

from contract.base import BaseIdentity
from contract.record import Record
from contract.reference import Agreement


class StageResult(Record):
    """The base of every stage's result; `stage` is the stage's name."""

    stage: ClassVar[str]


ResultType = TypeVar("ResultType", bound=StageResult)


class BaseResult(StageResult):
    """Which base lies in the cache now."""

    stage = "base"

    identity: BaseIdentity


class LengthFigures(Record):
    """Lengths of rows in tokens: the least, the median, the 95th percentile and the most."""

    min: int
    median: int
    p95: int
    max: int


class TruncatedRow(Record):
    """A row that is longer than `max_length`, and how many tokens it loses."""

    where: str
    tokens: int


class PrepareResult(StageResult):
    """The data report: counts of rows, and lengths in tokens before any row is truncated.

    `lengths` has every row's length, sorted. `no_room` are rows with no answer left within
    `max_length`. The last three are pairs of rows: equal ones, ones with the same question and
    two answers, and of a training row and a held-out row with the same question, which is not
    scored.
    """

    stage = "prepare"

    rows: int
    train: int
    held_out: int
    max_length: int
    tokens: LengthFigures
    answer_tokens: LengthFigures
    lengths: list[int]
    cut: list[TruncatedRow]
    no_room: list[str]
    duplicates: list[tuple[str, str]]
    conflicts: list[tuple[str, str]]
    in_both: list[tuple[str, str]]


class TrainingMetrics(Record):
    """A line of `metrics.jsonl`: the mean loss since the line before, in nats per token.

    `tokens` and `seconds` count from the start of the training, without loading the model.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_s: float
    seconds: float


class BaseAndTuned(Record):
    """One measure of two models: the base, and the same with the adapter."""

    base: float
    tuned: float


class Example(Record):
    """A held-out question and three answers to it."""

    prompt: str
    expected: str
    base: str
    tuned: str


class HeldOutScores(Record):
    """What `held_out.json` says: how both models do on rows that were not trained on.

    `loss` is in nats per completion token, over all held-out rows. `exact_match` is the share of
    the `answered_rows` whose answer is the expected one, letter for letter. None is what was not
    measured, because no row is held out or none was to be answered.
    """

    held_out_rows: int
    answered_rows: int
    loss: BaseAndTuned | None
    exact_match: BaseAndTuned | None
    examples: list[Example]


class TrainResult(StageResult):
    """The device's name, the training losses in nats per token, and the held-out scores."""

    stage = "train"

    device: str
    train_loss: list[float]
    held_out: HeldOutScores


class MergeResult(StageResult):
    """The type that the merged model's weights are stored in, and how many the adapter changed."""

    stage = "merge"

    dtype: str
    merged: int


class ReadBack(Record):
    """What `gguf/read_back.json` says: a GGUF file gives the merged model's answers.

    Of `prompts` greedy answers, `equal` are the same, token for token.
    """

    file: str
    prompts: int
    equal: int


class ConvertResult(StageResult):
    """The GGUF types written, the file that was read back, and whether the adapter has a file."""

    stage = "convert"

    types: list[str]
    read_back: ReadBack
    adapter: bool


class QuantizeResult(StageResult):
    """The GGUF types made, and whether an importance matrix weighted them.

    `larger_than_asked`: file -> how many of its weights have rows of a length that the type does
    not take, and were given a larger one.
    """

    stage = "quantize"

    types: list[str]
    imatrix: bool
    larger_than_asked: dict[str, int]


class ModelfileResult(StageResult):
    """Whether the chat template could be written in Ollama's language, and the stop tokens."""

    stage = "modelfile"

    template: bool
    stops: list[str]


class ReferenceResult(StageResult):
    """How many questions have a reference answer; GGUF type -> how near it is to f16."""

    stage = "reference"

    questions: int
    agreements: dict[str, Agreement]


class QuestionsResult(StageResult):
    """How many questions there are, and how many were dropped as part of the training data."""

    stage = "questions"

    items: int
    dropped: int


class BaselineResult(StageResult):
    """The GGUF type that the base was converted to."""

    stage = "baseline"

    type: str


RESULTS: dict[str, type[StageResult]] = {
    kind.stage: kind
    for kind in (
        BaseResult,
        PrepareResult,
        TrainResult,
        MergeResult,
        ConvertResult,
        QuantizeResult,
        ModelfileResult,
        ReferenceResult,
        QuestionsResult,
        BaselineResult,
    )
}
