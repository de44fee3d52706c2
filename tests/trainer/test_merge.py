"""The merged model is base plus adapter, in the base's precision."""

import json

import pytest
import torch
from safetensors.torch import load_file


def test_each_merged_weight_is_base_plus_scaled_product(smoke_run):
    base = load_file(smoke_run.base / "model.safetensors")
    merged = load_file(smoke_run.folder / "merged" / "model.safetensors")
    adapter = load_file(smoke_run.folder / "adapter" / "adapter_model.safetensors")
    config = json.loads((smoke_run.folder / "adapter" / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    changed = 0
    for name, weight in base.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in adapter:
            # W + (alpha / r) B A, LoRA (arXiv 2106.09685), section 4.1.
            a = adapter[f"{stem}.lora_A.weight"].float()  # (rank, in)
            b = adapter[f"{stem}.lora_B.weight"].float()  # (out, rank)
            weight = (weight.float() + scale * (b @ a)).to(weight.dtype)
            changed += 1
        assert merged[name].dtype == torch.float16
        torch.testing.assert_close(merged[name].float(), weight.float(), rtol=1e-3, atol=1e-6)
    # Seven projections in each layer.
    layers = json.loads((smoke_run.base / "config.json").read_text())["num_hidden_layers"]
    assert changed == 7 * layers


def test_the_tokenizer_is_copied_to_the_byte(smoke_run):
    for name in ("tokenizer.json", "tokenizer.model"):
        assert (smoke_run.folder / "merged" / name).read_bytes() == (
            smoke_run.base / name
        ).read_bytes()


@pytest.mark.parametrize("folder", ["merged", "adapter"])
def test_no_path_of_this_machine_is_left_behind(smoke_run, folder):
    for file in (smoke_run.folder / folder).glob("*.json"):
        assert str(smoke_run.project) not in file.read_text()


def test_the_adapters_configuration_names_its_base(smoke_run):
    config = json.loads((smoke_run.folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "smoke"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert len(config["target_modules"]) == 7
