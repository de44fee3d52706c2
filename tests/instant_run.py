"""Whole runs in a second: an engine that writes what stages would, of a few bytes each."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import numpy as np
from safetensors.numpy import save_file

from contract.chat_format import ChatFormat
from contract.data_rows import DataRows
from contract.events import Result, Started
from contract.manifest import ImageRecord
from contract.reference import Agreement
from contract.results.convert import ConvertResult, ReadBack
from contract.results.merge import MergeResult
from contract.results.modelfile import ModelfileResult
from contract.results.preflight import PreflightResult
from contract.results.prepare import LengthFigures, PrepareResult
from contract.results.reference import ReferenceResult
from contract.results.rendering import RenderingResult
from contract.results.train import HeldOutScores, StepLosses, TrainResult
from launcher.runtime.engine import Ending
from tests import gguf_files

_IMAGE = ImageRecord(digest=f"sha256:{'1' * 64}", builder="by hand")
_NEAR = Agreement(mean_kl=0.0, same_top=1.0, tokens=8)
_LENGTHS = LengthFigures(min=1, median=1, p95=1, max=1)
_NO_SCORES = HeldOutScores(
    held_out_rows=0, answered_rows=0, loss=None, exact_match=None, examples=[]
)


@dataclass
class InstantEngine:
    """Writes the outputs of each stage at once.

    Attributes:
        weights: of the adapter's second tensor and of all that is made from it.
        answer: that the reference holds.
        also: a further file of the adapter's folder.
        stop_at: the stage at which it is interrupted.
        ran: the stages that ran.
    """

    name: str = "instant"
    weights: float = 1.0
    answer: str = "Oui."
    also: str = ""
    stop_at: str = ""
    ran: list[str] = field(default_factory=list)

    def image(self, lock, display, *, exporter=False):
        del lock, display, exporter
        # Where an image holds it, the code is not copied for each stage.
        return _IMAGE

    def has_image(self, digest):
        del digest
        return False

    def is_ready(self, lock, *, exporter=False):
        del lock, exporter
        return True

    def run(self, job, on_event, display):
        del display
        self.ran.append(job.name)
        if job.name == self.stop_at:
            raise KeyboardInterrupt
        on_event(Started(python="3.12.1"))
        mounts = {mount.name: mount.source for mount in job.mounts}
        found = getattr(self, job.name)(mounts["out"], mounts)
        on_event(Result(values=found.model_dump(mode="json")))
        return Ending(0)

    def preflight(self, out, mounts):
        del out, mounts
        return PreflightResult(
            **{"architecture": "X", "parameters": 1, "attention": "sdpa", "adapted": 1},
            **{"go_template": True, "notes": []},
        )

    def prepare(self, out, mounts):
        folder = out / "prepared"
        folder.mkdir()
        files = {name: mounts[name] for name in ("data", "evaluation") if name in mounts}
        lines = mounts["data"].read_text(encoding="utf-8").splitlines()
        rows = [
            {"where": f"{mounts['data'].name}:{number}", "text": line}
            for number, line in enumerate(lines, 1)
        ]
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        ChatFormat(
            **{"template": "t", "end": "e", "ends": ["e"], "end_ids": [1], "thinking": None},
            needs_template_engine=None,
        ).write(folder / "chat_format.json")
        findings = ("cut", "no_room", "duplicates", "conflicts", "in_both", "laid_out")
        return PrepareResult(
            **{"rows": len(rows), "train": len(rows), "held_out": 0, "max_length": 16},
            **{"tokens": _LENGTHS, "answer_tokens": _LENGTHS, "lengths": [1] * len(rows)},
            **{kind: [] for kind in findings},
            files={name: DataRows.of(path) for name, path in files.items()},
        )

    def rendering(self, out, mounts):
        del mounts
        (out / "rendering.json").write_text("{}")
        return RenderingResult(prompts=1)

    def train(self, out, mounts):
        del mounts
        (out / "adapter").mkdir()
        tensors = {"a": np.ones((4, 8), np.float32), "b": np.full(64, self.weights, np.float32)}
        save_file(tensors, out / "adapter" / "adapter_model.safetensors", {"format": "pt"})
        if self.also:
            (out / "adapter" / self.also).write_text("more")
        line = {"step": 1, "loss": 0.5 * self.weights, "tokens_per_s": 1.0}
        line["seconds"] = time.monotonic()
        (out / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        losses = [StepLosses(step=1, loss=0.5 * self.weights, held_out_loss=None)]
        return TrainResult(
            **{"device": "cpu", "losses": losses, "steps": 1, "planned_steps": 1},
            **{"best_step": None, "resumed_after": [], "held_out": _NO_SCORES},
        )

    def merge(self, out, mounts):
        del mounts
        (out / "merged").mkdir()
        save_file(
            {"w": np.full(64, self.weights, np.float16)}, out / "merged" / "model.safetensors"
        )
        return MergeResult(dtype="float16", merged=1)

    def convert(self, out, mounts):
        del mounts
        tensors = {"token_embd.weight": np.full((2, 32), self.weights, np.float16)}
        gguf_files.write(out / "gguf" / "model-f16.gguf", tensors=tensors)
        (out / "gguf" / "read_back.json").write_text("{}")
        read_back = ReadBack(file="model-f16.gguf", by="x", prompts=1, equal=1, agreement=_NEAR)
        return ConvertResult(types=["f16"], read_back=read_back, adapter=True)

    def modelfile(self, out, mounts):
        del mounts
        (out / "Modelfile").write_text("FROM gguf/model-f16.gguf\n")
        (out / "serving.json").write_text("{}")
        return ModelfileResult(template=True, stops=["e"])

    def reference(self, out, mounts):
        del mounts
        reference = {"questions": [{"answer": "Non."}, {"answer": self.answer}]}
        (out / "reference.json").write_text(json.dumps(reference))
        return ReferenceResult(questions=2, agreements={}, merge=_NEAR)
