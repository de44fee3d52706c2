"""Where a stage finds its inputs and writes its outputs.

A stage is told its folders by flags of the same names, whatever the engine: inside a container
they are `/affineur/<name>`, on the host they are the real paths. Inside the run's folder every
file has one name, defined here, that both wings use. A stage writes under the same names into a
folder of its own (`--out`), which the launcher checks before it moves the files into the run's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class StagePaths(BaseModel):
    """The folders and files that one stage may use; only `output` is written to.

    Without `out`, a stage that is run by hand writes into the run's folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path
    out: Path | None = None
    data: Path | None = None
    evaluation: Path | None = None
    base: Path | None = None
    gguf: Path | None = None
    llama_cpp: Path | None = None
    tools: Path | None = None
    trained: Path | None = None
    skills: Path | None = None

    @property
    def output(self) -> Path:
        """The folder that the stage writes into; all else is only read."""
        return self.out or self.run

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> StagePaths:
        """Read `--run DIR --data FILE ...`; anything else ends the process with exit code 2."""
        parser = argparse.ArgumentParser(description="One stage of a run; started by ./invoke.")
        for name, field in cls.model_fields.items():
            flag = "--" + name.replace("_", "-")
            parser.add_argument(flag, dest=name, type=Path, required=field.is_required())
        return cls(**vars(parser.parse_args(arguments)))

    def require(self, name: str) -> Path:
        """The path of this name, without which the stage cannot run.

        Raises:
            LookupError: the launcher started the stage without it (a bug of the pipeline).
        """
        path: Path | None = getattr(self, name)
        if path is None:
            raise LookupError(f"this stage needs --{name.replace('_', '-')}")
        return path


# Names inside the run's folder.
# Where stages write while they run, each into a folder of its own.
WORK = Path(".work")
RECIPE = Path("recipe.json")
# What trackers write into a run; no output of a stage.
TRACKING = Path("tracking")
PREPARED = Path("prepared")
PREPARED_TRAIN = PREPARED / "train.jsonl"
PREPARED_HELD_OUT = PREPARED / "held_out.jsonl"
CHAT_FORMAT = PREPARED / "chat_format.json"
PREPARED_REPORT = PREPARED / "report.json"
RENDERING = Path("rendering.json")
ADAPTER = Path("adapter")
METRICS = Path("metrics.jsonl")
CHECKPOINTS = Path("checkpoints")
HELD_OUT_SCORES = Path("held_out.json")
TRAINED_TOKENS = Path("trained_tokens.json")
MERGED = Path("merged")
GGUF = Path("gguf")
READ_BACK = GGUF / "read_back.json"
IMATRIX = GGUF / "imatrix.gguf"
ADAPTER_GGUF = GGUF / "adapter-f32.gguf"
MODELFILE = Path("Modelfile")
SERVING = Path("serving.json")
REFERENCE = Path("reference.json")
MANIFEST = Path("manifest.json")
STAGES = Path("stages")
LOGS = Path("logs")
# The evaluation's own folder below the run's, and its files.
EVALUATION_FOLDER = Path("evaluation")
QUESTIONS_REQUEST = Path("request.json")
QUESTIONS = Path("questions.json")
ANSWERS = Path("answers")
# Beside the manifest.
EVALUATION = Path("evaluation.json")
CARD = Path("card.md")


def memory_fallback(stage: str) -> Path:
    """What a stage that was killed for lack of memory goes on with; its launcher's file."""
    return WORK / f"{stage}.memory_fallback.json"


def checkpoint_name(step: int | str) -> str:
    """`step-120`, in the folder of a training's checkpoints; `*` for any."""
    return f"step-{step}"


def checkpoint_step(name: str) -> int | None:
    """The step of a checkpoint's folder; None where it is none, or not finished."""
    step = name.removeprefix(checkpoint_name(""))
    return int(step) if step != name and step.isdecimal() and step.isascii() else None


def gguf_name(quantization: str) -> Path:
    """`gguf/model-f16.gguf`, from the run's folder."""
    return GGUF / f"model-{quantization}.gguf"


def base_gguf_name(quantization: str) -> Path:
    """`gguf/base-f16.gguf`: the base itself, where the adapter is served beside it."""
    return GGUF / f"base-{quantization}.gguf"


# A base in the cache.
BASE_REQUEST = Path("request.json")
BASE_RECORD = Path("base.json")
BASE_MODEL = Path("model")
