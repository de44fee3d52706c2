"""Runs that nobody trained: folders with a manifest, records, rows, a reference and an evaluation,
as much of each as commands read that look at runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract import paths
from contract.evaluation import Item, Questions
from contract.manifest import Manifest, StageRecord
from contract.reference import Agreement, Question, Reference
from contract.results.prepare import LengthFigures, PrepareResult
from contract.results.train import BaseAndTuned, Example, HeldOutScores, StepLosses, TrainResult
from launcher.configuration import resolve
from launcher.evaluate.answer_bounds import max_new_tokens
from launcher.evaluate.record import Evaluation, GateDecision, GateLine, ModelIdentity
from launcher.evaluate.response_cache import ResponseCache
from launcher.evaluate.scoring import examples, results
from launcher.pipeline.finished_run import Run
from launcher.serving.chat_model import Answer

DAY = "2026-01-{:02}T00:00:00+00:00"
# Question, right answer, what the base said, what the tuned model said.
Asked = tuple[str, str, str, str]
EXAMPLES: tuple[Asked, ...] = (("2+2?", "4", "five", "4"), ("Paris?", "oui", "non", "oui"))
_MOST_TOKENS = 96


def record(stage: str, result: Mapping[str, Any] | None = None, **more: Any) -> StageRecord:
    """A stage that went well, on the first of January."""
    values = {
        "stage": stage,
        "key": "k",
        "command": [],
        "engine": "local",
        "python": "3.11.2",
        "started": DAY.format(1),
        "seconds": 1.5,
        "inputs": {},
        "outputs": {},
        "result": dict(result or {}),
    }
    return StageRecord(**{**values, **more})


def prepared(train: int = 3, held_out: int = 2) -> dict[str, Any]:
    """What `prepare` reports of so many rows."""
    figures = LengthFigures(min=1, median=1, p95=1, max=1)
    report = PrepareResult(
        rows=train + held_out,
        train=train,
        held_out=held_out,
        max_length=512,
        tokens=figures,
        answer_tokens=figures,
        lengths=[1] * (train + held_out),
        cut=[],
        no_room=[],
        duplicates=[],
        conflicts=[],
        in_both=[],
        laid_out=[],
    )
    return report.model_dump(mode="json")


def trained(
    asked: Sequence[Asked] = EXAMPLES, loss: float = 0.5, base_loss: float = 5.0, **more: Any
) -> dict[str, Any]:
    """What `train` reports of a training that ended at a held-out loss."""

    def right(column: int) -> float:
        return sum(one[column] == one[1] for one in asked) / max(len(asked), 1)

    values = {
        "device": "cpu",
        "losses": [StepLosses(step=1, loss=loss + 1, held_out_loss=loss)],
        "steps": 1,
        "planned_steps": 1,
        "best_step": 1,
        "resumed_after": [],
        "held_out": HeldOutScores(
            held_out_rows=len(asked),
            answered_rows=len(asked),
            loss=BaseAndTuned(base=base_loss, tuned=loss),
            exact_match=BaseAndTuned(base=right(2), tuned=right(3)),
            examples=[
                Example(prompt=question, expected=expected, base=base, tuned=tuned)
                for question, expected, base, tuned in asked
            ],
        ),
    }
    return TrainResult(**{**values, **more}).model_dump(mode="json")


def make_run(
    models: Path,
    model: str,
    key: str,
    *,
    name: str = "",
    day: int = 1,
    settings: Sequence[str] = (),
    records: Sequence[StageRecord] | None = None,
    **more: Any,
) -> Path:
    """A finished run's folder, with what it recorded of its preparing and its training.

    Args:
        model: the folder of its model.
        name: the model's name, where that is another.
    """
    if records is None:
        records = [record("prepare", prepared()), record("train", trained())]
    folder = models / model / key
    folder.mkdir(parents=True)
    values = {
        "affineur_version": "0",
        "key": key,
        "recipe": resolve("smoke", settings=[f"output_model_name={name or model}", *settings]),
        "base": {"source": "smoke", "revision": None, "digest": "0", "files": {}},
        "data": {"data": "d" * 64},
        "locks": {"rtx.lock": "1" * 64},
        "code": {one.stage: "c" * 64 for one in records},
        "versions": {"torch": "2.0"},
        "machine": {"platform": "x", "processor": "y", "cores": 1},
        "created": DAY.format(day),
        "stages": list(records),
    }
    Run(folder).write_manifest(Manifest(**{**values, **more}))
    return folder


def make_unfinished(
    models: Path,
    model: str,
    key: str,
    *,
    stages: Sequence[str] = (),
    checkpoints: Sequence[int] = (),
) -> Path:
    """A run that was stopped after these stages, with these steps' checkpoints."""
    folder = models / model / key
    folder.mkdir(parents=True)
    results = {"prepare": prepared(), "train": trained()}
    for stage in stages:
        record(stage, results.get(stage)).write(folder / paths.STAGES / f"{stage}.json")
    for step in checkpoints:
        place = folder / paths.WORK / "train" / paths.CHECKPOINTS / paths.checkpoint_name(step)
        place.mkdir(parents=True)
        (place / "weights").write_bytes(b"w" * 5000)
    return folder


def write_rows(folder: Path, rows: Sequence[tuple[str, str]], name: Path) -> None:
    """Prepared rows, in the form of the stage `prepare`."""
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    lines = [
        {
            "where": f"rows:{number}",
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ],
            "tools": [],
            "input_ids": [number],
            "completion_mask": [1],
            "prompt_ids": [],
        }
        for number, (question, answer) in enumerate(rows, 1)
    ]
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def write_reference(folder: Path, answers: Mapping[str, str]) -> None:
    """A reference in which the f16 file answers held-out questions so."""
    same = Agreement(mean_kl=0, same_top=1, tokens=1)
    questions = [
        Question(
            messages=[{"role": "user", "content": question}],
            prompt=question,
            prompt_tokens=1,
            answer=answer,
            decided=None,
            held_out=True,
        )
        for question, answer in answers.items()
    ]
    Reference(
        answer_tokens=9, questions=questions, agreements={}, merge=same, rendering=None
    ).write(folder / paths.REFERENCE)


@dataclass(frozen=True)
class _Knows:
    """A model that has its answers by heart."""

    answers: Mapping[str, str]
    name: str = "m"
    digest: str = "d"
    by: str = "llama-server"

    def ask(self, messages, max_new_tokens, tools=()) -> Answer:
        return Answer(self.answers[messages[-1]["content"]], "stop")

    def abort(self) -> None:
        pass


def evaluate(
    folder: Path, answers: Mapping[str, tuple[str, str]], *, gate: str | None = None
) -> Evaluation:
    """An evaluation of a run's model on a task, with its answers in the run's cache.

    Args:
        answers: what is expected, and what the model says, by question.
        gate: what the gate said of it.
    """
    items = [
        Item(
            set="sort",
            kind="task",
            where=f"sort.jsonl:{number}",
            messages=[{"role": "user", "content": question}],
            expected=expected,
            metric="exact",
        )
        for number, (question, (expected, _)) in enumerate(answers.items(), 1)
    ]
    below = folder / paths.EVALUATION_FOLDER
    Questions(items=items, dropped=[]).write(below / paths.QUESTIONS)
    model = ModelIdentity(
        name="m", by="llama-server", digest=f"sha256:{folder.name:0<64}", model_digest=None
    )
    bounds = [max_new_tokens(item, _MOST_TOKENS) for item in items]
    file = below / paths.ANSWERS / model.answers_file
    cache = ResponseCache(file, [item.messages for item in items], bounds)
    said = {question: answer for question, (_, answer) in answers.items()}
    cache.ask(_Knows(said), 1, lambda done, total: None)
    decision = None
    if gate is not None:
        decision = GateDecision.of([GateLine(name="task", outcome=gate, found="x")], [])
    found = Evaluation(
        model=model,
        base=None,
        sets=results(items, bounds=bounds, ours=cache.answers, base=None, max_skill_loss=0.1),
        dropped=[],
        examples=examples(items, cache.answers, None),
        limit=None,
        max_new_tokens=_MOST_TOKENS,
        max_skill_loss=0.1,
        created=DAY.format(1),
        gate=decision,
    )
    found.write(folder / paths.EVALUATION)
    return found


def compared_pair(models: Path, *, words: str = "") -> tuple[Run, Run]:
    """Two runs that differ in each way that a comparison shows.

    Args:
        words: stand behind each question and answer; markup, for instance.
    """
    sides = (("aaaa", 0.002, "d", 0.5, "a"), ("bbbb", 0.001, "e", 0.75, "b"))
    found = []
    for key, rate, digest, loss, said in sides:
        asked = [
            (f"Rome?{words}", f"oui{words}", "x", f"oui{words}" if said == "a" else f"non{words}"),
            ("Oslo?", "non", "x", "non"),
        ]
        outputs = {"same": "1" * 64, "adapter/adapter_model.safetensors": digest * 64}
        folder = make_run(
            models,
            "m",
            key,
            settings=[f"learning_rate={rate}"],
            records=[
                record("prepare", prepared()),
                record("train", trained(asked, loss), outputs=outputs),
            ],
            data={"data": digest * 64},
            code={"prepare": digest * 64, "train": digest * 64},
        )
        write_rows(folder, [("1+1?", "2"), ("2+2?", "4"), (said, said)], paths.PREPARED_TRAIN)
        write_rows(folder, [("Rome?", "oui")], paths.PREPARED_HELD_OUT)
        write_reference(folder, {"Wien?": "x" if said == "a" else "y"})
        right = {"a": (0, 1, 2, 3), "b": (0, 1, 2, 4)}[said]
        evaluate(
            folder,
            {
                f"q{number}{words}": (f"a{words}", f"a{words}" if number in right else "b")
                for number in range(5)
            },
        )
        found.append(Run(folder))
    return found[0], found[1]
