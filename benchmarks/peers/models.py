"""What the benchmark does with models, each in a process of its own: the benchmark's stays small.

python -m benchmarks.peers.models copy BASE FOLDER TYPE       a base with its weights in a type
python -m benchmarks.peers.models score BASE ROWS [ADAPTER]   a line of JSON: `Score`
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

from contract.record import Record


class Score(Record):
    """`loss` in nats per completion token of the held-out rows, in fp32."""

    loss: float
    adapter_parameters: int


def copy(base: Path, folder: Path, kind: str) -> None:
    """Copy a base, its weights in the type of this name in torch.

    Some trainers compute in the type that the files have, and fp16 takes a processor many times as
    long.
    """
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    for file in folder.glob("*.safetensors"):
        read = load_file(file).items()
        tensors = {name: weight.to(getattr(torch, kind)) for name, weight in read}
        save_file(tensors, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_bytes())
    config.pop("torch_dtype", None)
    config["dtype"] = kind
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def score(base: Path, rows: Path, adapter: Path | None) -> Score:
    """The held-out loss of a base, with an adapter that any of the trainers wrote."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from trainer.entrypoint import Reporter
    from trainer.prepared import read_prepared
    from trainer.train.scoring import held_out_loss

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    weights = [weight for name, weight in model.named_parameters() if "lora_" in name]
    loss = held_out_loss(
        model, read_prepared(rows), who="adapter", reporter=Reporter(io.StringIO())
    )
    return Score(loss=loss, adapter_parameters=sum(weight.numel() for weight in weights))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["copy", base, folder, kind]:
            copy(Path(base), Path(folder), kind)
        case ["score", base, rows]:
            print(score(Path(base), Path(rows), None).model_dump_json())
        case ["score", base, rows, adapter]:
            print(score(Path(base), Path(rows), Path(adapter)).model_dump_json())
        case _:
            sys.exit(__doc__)
