"""A finished run that nothing trained: a few files of a few bytes, and a manifest that is true."""

from __future__ import annotations

import hashlib
from pathlib import Path

from contract.manifest import ImageRecord, Manifest, StageRecord
from contract.reference import Agreement
from contract.results.preflight import PreflightResult
from contract.results.reference import ReferenceResult
from contract.results.train import BaseAndTuned, HeldOutScores, TrainResult
from contract.serving import Serving
from launcher.configuration import resolve
from launcher.pipeline.finished_run import Run
from launcher.runtime.dependency_locks import lock_digest

GGUF = "gguf/model-q8_0.gguf"
FILES = {
    "adapter/adapter_config.json": b"{}\n",
    "adapter/adapter_model.safetensors": b"adapter weights \xc3\xa9",
    "merged/model.safetensors": b"merged weights",
    GGUF: b"quantized weights",
    "gguf/model-f16.gguf": b"weights in 16 bits",
    "Modelfile": b"FROM ./gguf/model-q8_0.gguf\n",
    "metrics.jsonl": b"",
}
COMMIT = "989aa7980e4cf806f80c7fef2b1adb7bc71aa306"
_AGREEMENT = Agreement(mean_kl=0.00035, same_top=1.0, tokens=256)
_RESULTS = {
    "preflight": PreflightResult(
        architecture="LlamaForCausalLM",
        parameters=100,
        attention="sdpa",
        adapted=7,
        go_template=True,
        notes=[],
    ),
    "train": TrainResult(
        device="cpu",
        losses=[],
        steps=3,
        planned_steps=3,
        best_step=None,
        resumed_after=[],
        held_out=HeldOutScores(
            held_out_rows=118,
            answered_rows=60,
            loss=BaseAndTuned(base=0.383, tuned=0.001),
            exact_match=BaseAndTuned(base=0.0, tuned=0.9),
            examples=[],
        ),
    ),
    "reference": ReferenceResult(questions=2, agreements={"q8_0": _AGREEMENT}, merge=_AGREEMENT),
}
_MADE_BY = {
    "train": ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "metrics.jsonl"],
    "merge": ["merged/model.safetensors"],
    "convert": [GGUF, "gguf/model-f16.gguf"],
    "modelfile": ["Modelfile", "serving.json"],
}
STAGES = ("preflight", "prepare", "train", "merge", "convert", "modelfile", "reference")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_run(folder: Path, *, image: bool = False, **changed: object) -> Run:
    """A run in a folder, of the smoke recipe on a base of the Hub.

    Args:
        image: its stages ran in a container; otherwise on the local engine.
        changed: keys of the manifest that are to be others.
    """
    serving = Serving(gguf=GGUF, template=None, system=None, parameters={})
    files = {**FILES, "serving.json": serving.model_dump_json().encode()}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    manifest = Manifest(
        affineur_version="0.1.0",
        key=sha256(b"train"),
        recipe=resolve("smoke"),
        base={
            "source": "Qwen/Qwen2.5-1.5B-Instruct",
            "revision": COMMIT,
            "digest": sha256(b"files"),
            "files": {"config.json": sha256(b"config"), "model.safetensors": sha256(b"model")},
        },
        data={"data": sha256(b"rows"), "evaluation": sha256(b"held-out rows")},
        locks={f"{name}.lock": lock_digest(name) for name in ("rtx", "llama-cpp")},
        code={stage: sha256(stage.encode()) for stage in STAGES},
        versions={"torch": "2.13.0"},
        machine={"platform": "Linux", "processor": "a processor", "cores": 2},
        created="2026-01-02T03:04:05+00:00",
        stages=[_record(stage, files, image) for stage in STAGES],
    )
    run = Run(folder)
    run.write_manifest(manifest.model_copy(update=changed))
    return run


def _record(stage: str, files: dict[str, bytes], image: bool) -> StageRecord:
    result = _RESULTS.get(stage)
    return StageRecord(
        stage=stage,
        key=sha256(b"key of " + stage.encode()),
        decided_by={"inputs": {"llama_cpp": sha256(b"llama.cpp")}} if stage == "convert" else {},
        command=["python", "-m", f"trainer.{stage}"],
        engine="docker" if image else "local",
        image=ImageRecord(digest=f"sha256:{sha256(b'image')}", builder="BuildKit v0.25")
        if image
        else None,
        python="3.11.14",
        started="2026-01-02T03:00:00+00:00",
        seconds=1.0,
        inputs={},
        outputs={name: sha256(files[name]) for name in _MADE_BY.get(stage, [])},
        result=result.model_dump(mode="json") if result is not None else {},
    )
