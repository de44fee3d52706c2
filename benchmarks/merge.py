"""The merge against PEFT's own, on a synthetic model of four files of about 500 MB.

`./invoke bench merge`. Each runs in a process of its own, in turn, on the same files; peak memory
is the process's largest resident set, time is the wall clock's from its start to its end. What is
printed last are ratios within this run: the figures themselves depend on the machine.
"""

from __future__ import annotations

import io
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROUNDS = 3
_LAYERS = 13


def make(folder: Path) -> None:
    """A Llama of 1.0e9 parameters in bf16, and a LoRA adapter of rank 16 on all its layers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=_LAYERS,
        num_attention_heads=16,
        num_key_value_heads=16,
        dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder / "base", max_shard_size="540MB")
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    peft = get_peft_model(model, lora)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    peft.save_pretrained(folder / "adapter")


def ours(folder: Path, target: Path) -> None:
    """Our stage's own function."""
    from trainer.adapter import Adapter
    from trainer.entrypoint import Reporter
    from trainer.merge.stage import merge_weights

    adapter = Adapter.read(folder / "adapter")
    merge_weights(folder / "base", adapter, target, reporter=Reporter(io.StringIO()))


def peft(folder: Path, target: Path) -> None:
    """What PEFT's documentation shows, in the base's own precision."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
    merged.save_pretrained(target, max_shard_size="540MB")


def main() -> None:
    """Make the model, run both in turn, print figures and ratios."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        subprocess.run([sys.executable, "-m", __spec__.name, "make", scratch], check=True)
        files = sorted((folder / "base").glob("*.safetensors"))
        for file in files:
            print(f"{file.name}  {file.stat().st_size / 1e6:.0f} MB")
        seconds: dict[str, list[float]] = {"ours": [], "peft": []}
        peaks: dict[str, list[float]] = {"ours": [], "peft": []}
        for _ in range(_ROUNDS):
            for who in seconds:
                with tempfile.TemporaryDirectory(dir=scratch) as target:
                    started_s = time.monotonic()
                    done = subprocess.run(
                        [sys.executable, "-m", __spec__.name, who, scratch, target],
                        check=True,
                        capture_output=True,
                        text=True,
                    )
                    seconds[who].append(time.monotonic() - started_s)
                    peaks[who].append(float(done.stdout.split()[-1]))
    for who in seconds:
        median_s, peak_mb = statistics.median(seconds[who]), max(peaks[who]) / 1e6
        print(f"{who:<5} {median_s:6.1f} s (median of {_ROUNDS})  peak {peak_mb:6.0f} MB")
    time_ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["peft"])
    print(f"ours / peft: time {time_ratio:.2f}, peak {max(peaks['ours']) / max(peaks['peft']):.2f}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        {"ours": ours, "peft": peft}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
