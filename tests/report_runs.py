"""Finished runs made by hand: every record that a report reads, and texts that would break it."""

from __future__ import annotations

import math

from contract.manifest import Check, Manifest, StageRecord, Verification
from contract.results.prepare import LengthFigures, PrepareResult, TruncatedRow
from contract.results.train import (
    BaseAndTuned,
    Example,
    HeldOutScores,
    MemoryFigures,
    StepLosses,
    TrainingMetrics,
    TrainResult,
)
from contract.serving import Serving
from launcher.configuration import resolve
from launcher.evaluate import record
from launcher.evaluate.intervals import mean_score
from launcher.evaluate.paired_differences import mean_difference
from launcher.pipeline.finished_run import Run
from launcher.runtime.dependency_locks import lock_digest

GGUF = "gguf/model-q8_0.gguf"
MOMENT = "2026-11-27T17:42:09+00:00"
# Markup, quotes, letters of two directions, an emoji, a word without an end, control characters.
HOSTILE = (
    "<script>alert('1')</script> \"><img src=x onerror=alert(2)> {{ 7*7 }} & &amp;\n"
    "שלום עולם مرحبا \U0001f9c0\u202eevil\u202c\x00\x1b[31m\n" + "verylongword" * 60
)
QUESTION = (
    "Sort the customer's message. Answer with JSON that has the keys category, urgent and order, "
    "and with nothing else.\n\nMessage {}: two of the four curtains have a crooked hem. Refund "
    "these two, I keep the others. Order T-8230, delivered on the third of the month to the shop "
    "in the rue de Rivoli, by the usual carrier."
)


def training(*, steps=60, evaluated=True, hostile=True):
    """A training that learns, and its lines of metrics, one for each five steps."""
    lines = []
    for step in range(5, steps + 1, 5):
        share = step / steps
        lines.append(
            TrainingMetrics(
                step=step,
                epoch=round(3 * share, 4),
                loss=1.2 * math.exp(-3 * share) + 0.05 * math.sin(step),
                held_out_loss=1.1 * math.exp(-2.5 * share) + 0.1 if step % 15 == 0 else None,
                learning_rate=2e-4 * (1 + math.cos(math.pi * share)) / 2,
                grad_norm=1.5 - share,
                tokens=step * 371,
                tokens_per_s=round(800 + 40 * math.cos(step), 1),
                seconds=round(step * 0.471, 3),
            )
        )
    examples = [
        Example(
            prompt=QUESTION.format(number),
            expected='{"category": "refund", "urgent": false, "order": "T-8230"}',
            base="Thank you for your message! I would be happy to help with your curtains.",
            tuned=answer,
        )
        for number, answer in enumerate(
            [
                '{"category": "refund", "urgent": false, "order": "T-8230"}',
                '{"category": "technical", "urgent": false, "order": "T-8230"}',
            ]
        )
    ]
    if hostile:
        examples.append(Example(prompt=HOSTILE, expected=HOSTILE, base="", tuned=HOSTILE + " <b>"))
    scores = HeldOutScores(
        held_out_rows=122,
        answered_rows=60,
        loss=BaseAndTuned(base=1.119407, tuned=0.0961234),
        exact_match=BaseAndTuned(base=0.01639344262295082, tuned=0.8666666666666667),
        examples=examples,
    )
    if not evaluated:
        scores = HeldOutScores(
            held_out_rows=0, answered_rows=0, loss=None, exact_match=None, examples=[]
        )
        lines = [line.model_copy(update={"held_out_loss": None}) for line in lines]
    result = TrainResult(
        device="cpu, 2 threads",
        losses=[
            StepLosses(step=line.step, loss=line.loss, held_out_loss=line.held_out_loss)
            for line in lines
        ],
        steps=steps,
        planned_steps=steps + 20 if evaluated else steps,
        best_step=45 if evaluated else None,
        resumed_after=[20, 40] if evaluated else [],
        changed={"packing_length": 1024} if evaluated else {},
        memory=MemoryFigures(
            estimate_bytes=1_083_524_128, probe_bytes=1_000_546_304, peak_bytes=999_268_352
        )
        if evaluated
        else None,
        held_out=scores,
    )
    return result, lines


def preparation():
    """Rows of which two are cut."""
    lengths = sorted([39 + (number * number) % 97 for number in range(434)] + [600, 640, 90, 91])
    return PrepareResult(
        rows=558,
        train=436,
        held_out=122,
        max_length=512,
        tokens=LengthFigures(min=39, median=84, p95=132, max=640),
        answer_tokens=LengthFigures(min=13, median=16, p95=20, max=31),
        lengths=lengths,
        cut=[
            TruncatedRow(where="demo.jsonl:7", tokens=88),
            TruncatedRow(where="<i>:9", tokens=128),
        ],
        no_room=[],
        duplicates=[("demo.jsonl:1", "demo.jsonl:2")],
        conflicts=[],
        in_both=[],
        laid_out=[],
        unread={"id": 558, "<b>": 1},
    )


def stage(name, seconds, result=None, **outputs):
    """A finished stage."""
    digest = f"{len(name):02x}" * 32
    return StageRecord(
        stage=name,
        key=digest,
        decided_by={"inputs": {"base": "ba" * 32, "data": "da" * 32}},
        command=["python", "-m", f"trainer.{name}"],
        engine="local",
        python="3.11.7",
        started=MOMENT,
        seconds=seconds,
        inputs={},
        outputs=outputs or {f"{name}.json": digest},
        result=result.model_dump(mode="json") if result is not None else {},
    )


def make_run(folder, *, steps=60, whole=True, hostile=True):
    """A finished run; `whole` has it evaluated, proved and decided on, else none of it was."""
    folder.mkdir(parents=True)
    trained, lines = training(steps=steps, evaluated=whole, hostile=hostile)
    (folder / "metrics.jsonl").write_text("".join(f"{one.model_dump_json()}\n" for one in lines))
    Serving(gguf=GGUF, template=None, system=None, parameters={}).write(folder / "serving.json")
    run = Run(folder)
    recipe = resolve("smoke").model_copy(
        update={"output_model_name": "affineur-demo", "dataset_path": "data/training/demo.jsonl"}
    )
    run.write_manifest(
        Manifest(
            affineur_version="0.1.0",
            key="0123456789abcdef" * 4,
            recipe=recipe,
            base={
                "source": "HuggingFaceTB/SmolLM2-135M-Instruct",
                "revision": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
                "digest": "ba" * 32,
                "files": {"config.json": "c0" * 32, "model.safetensors": "5a" * 32},
            },
            data={"data": "da" * 32, "evaluation": "de" * 32},
            locks={"rtx.lock": lock_digest("rtx"), "llama-cpp.lock": "0" * 64},
            code={"train": "cc" * 32},
            versions={"torch": "2.13.0", "transformers": "5.23.0"},
            machine={"platform": "Linux-6.18-x86_64", "processor": "AMD EPYC", "cores": 2},
            created=MOMENT,
            stages=[
                stage("prepare", 3.5, preparation()),
                stage("train", 288.4, trained),
                stage("merge", 1.25),
                stage("convert", 39.0, **{GGUF: "96" * 32}),
                stage("reference", 63.2),
            ],
        )
    )
    if whole:
        run.record_verification(proof(run))
        evaluation(run).write(folder / "evaluation.json")
    return run


def proof(run, *, passed=True, of=None):
    """A verification of the run's model, or of another digest."""
    found = "32 of 32 match the merged model <em>"
    return Verification(
        model="affineur-demo",
        model_digest=of or run.recorded_model_digest,
        server="0.34.1",
        address="http://127.0.0.1:11434",
        image="sha256:" + "ab" * 32,
        passed=passed,
        checks=[
            Check(name="server report", passed=True, found="files and template as sent"),
            Check(name="greedy answers (f16)", passed=passed, found=found),
        ],
    )


def evaluation(run, *, outcome="passed"):
    """A task that was learned and a skill that was kept; no `outcome` leaves it undecided."""
    sets = [_set("demo", "task", ours=0.9, theirs=0.0), _set("arithmetic", "skill", 0.4, 0.25)]
    identity = record.ModelIdentity(
        name="affineur-demo",
        by="Ollama 0.34.1",
        address="http://127.0.0.1:11434",
        digest="sha256:" + "1f" * 32,
        model_digest=run.recorded_model_digest,
    )
    line = record.GateLine(name="task", outcome=outcome or "passed", found="+90.0 on 32 rows")
    return record.Evaluation(
        model=identity,
        base=identity.model_copy(update={"name": "the base", "model_digest": None}),
        sets=sets,
        dropped=[],
        examples=[
            record.Example(
                where="demo.jsonl:1",
                question=HOSTILE,
                expected="refund",
                model="technical",
                base=None,
            )
        ],
        limit=32,
        max_new_tokens=128,
        max_skill_loss=0.08,
        created=MOMENT,
        gate=record.GateDecision(outcome=outcome, lines=[line]) if outcome else None,
    )


def _set(name, kind, ours, theirs, rows=32):
    scores = [
        [1.0] * round(share * rows) + [0.0] * (rows - round(share * rows))
        for share in (ours, theirs)
    ]
    none = record.Counts(empty=0, no_json=0, truncated=0, repetition_loop=0)
    counts = none.model_copy(update={"truncated": 3})
    return record.SetResult(
        set=name,
        kind=kind,
        metrics=["json_f1"],
        rows=rows,
        model=record.Scores(score=mean_score(scores[0]), counts=none, row_scores=scores[0]),
        base=record.Scores(score=mean_score(scores[1]), counts=counts, row_scores=scores[1]),
        difference=mean_difference(*scores),
        verdict="better" if kind == "task" else "inconclusive",
        regression=False,
        max_new_tokens=(64, 128),
    )
