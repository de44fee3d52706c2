"""What a LoRA adapter adds to which module: PEFT's files, read without PEFT.

LoRA (arXiv 2106.09685): W + s B A, with s = alpha / r, or alpha / sqrt(r) for rsLoRA
(arXiv 2312.03732). Everything else that an adapter can be is refused by name: to leave it out
would silently make a model that is not the trained one.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from contract.errors import Problem, UserError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LINEAR = (".lora_A.weight", ".lora_B.weight")
_EMBEDDING = (".lora_embedding_A", ".lora_embedding_B")
# PEFT saves the base's own embeddings beside an adapter on them.
_BASE_LAYER = ".base_layer.weight"
# Keys of PEFT's configuration that change nothing in W + s B A, or that are read below.
_KNOWN_SETTINGS = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
}
# Others (pissa, olora, corda, loftq) change the base, too.
_INITIALISATIONS = (True, False, "gaussian", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter in its folder.

    `modules` are those that it changes, named as in the model: `model.layers.0.self_attn.q_proj`.
    """

    folder: Path
    modules: tuple[str, ...]
    settings: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """Read an adapter's configuration and the names of its tensors.

        Raises:
            UserError: naming everything in it that is more than W + s B A.
        """
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            names = list(file.keys())
        problems = [*_unsupported_settings(settings), *_unsupported_tensors(names)]
        if problems:
            raise UserError(problems)
        modules = sorted({_module(name) for name in names if not name.endswith(_BASE_LAYER)})
        return cls(folder, tuple(modules), settings)

    def scale(self, module: str, rank: int) -> float:
        """s of W + s B A, with the pattern that matches the module, if any."""
        alpha = _by_pattern(self.settings.get("alpha_pattern") or {}, module)
        alpha = self.settings["lora_alpha"] if alpha is None else alpha
        return float(alpha) / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)

    def delta(self, module: str) -> torch.Tensor:
        """s B A in fp32, in the shape of the module's weight."""
        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            embedding = f"{_PREFIX}{module}{_EMBEDDING[0]}" in file.keys()  # noqa: SIM118
            down, up = _EMBEDDING if embedding else _LINEAR
            a = file.get_tensor(f"{_PREFIX}{module}{down}").float()  # (rank, in)
            b = file.get_tensor(f"{_PREFIX}{module}{up}").float()  # (out, rank)
        product = b @ a  # (out, in)
        if embedding or self.settings.get("fan_in_fan_out"):
            product = product.T
        return product * self.scale(module, a.shape[0])

    def delta_shape(self, module: str) -> tuple[int, ...]:
        """The shape of `delta`, from the file's header."""
        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            embedding = f"{_PREFIX}{module}{_EMBEDDING[0]}" in file.keys()  # noqa: SIM118
            down, up = _EMBEDDING if embedding else _LINEAR
            _, width = file.get_slice(f"{_PREFIX}{module}{down}").get_shape()
            height, _ = file.get_slice(f"{_PREFIX}{module}{up}").get_shape()
        turned = embedding or self.settings.get("fan_in_fan_out")
        return (width, height) if turned else (height, width)

    def write_scaled(self, folder: Path) -> None:
        """Write the same adapter with every s multiplied into its B, and alpha 0: no scale.

        Readers that do not know rsLoRA and patterns then add the same to W.
        """
        tensors = load_file(self.folder / WEIGHTS)
        for module in self.modules:
            up = f"{_PREFIX}{module}{_LINEAR[1]}"
            tensors[up] = tensors[up] * self.scale(module, tensors[up].shape[1])
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        settings = {**self.settings, "lora_alpha": 0, "use_rslora": False, "alpha_pattern": {}}
        (folder / CONFIG).write_text(json.dumps(settings), encoding="utf-8")


def _unsupported_settings(settings: dict[str, Any]) -> list[Problem]:
    unknown = [key for key, value in settings.items() if value and key not in _KNOWN_SETTINGS]
    problems = [_refusal(f"{key}: {settings[key]}") for key in sorted(unknown)]
    if settings.get("peft_type") != "LORA":
        problems.append(_refusal(f"peft_type: {settings.get('peft_type')}"))
    if settings.get("bias", "none") != "none":
        problems.append(_refusal(f"bias: {settings['bias']}"))
    if settings.get("init_lora_weights", True) not in _INITIALISATIONS:
        problems.append(_refusal(f"init_lora_weights: {settings['init_lora_weights']}"))
    return problems


def _unsupported_tensors(names: list[str]) -> list[Problem]:
    ends = (*_LINEAR, *_EMBEDDING, _BASE_LAYER)
    return [
        _refusal(f"the tensor {name}")
        for name in names
        if not (name.startswith(_PREFIX) and name.endswith(ends))
    ]


def _refusal(what: str) -> Problem:
    return Problem(
        where="adapter",
        what=f"it contains {what}, which goes beyond LoRA's W + s B A and cannot be merged",
        remedy="Train a plain LoRA or rsLoRA adapter.",
    )


def _module(name: str) -> str:
    for end in (*_LINEAR, *_EMBEDDING):
        name = name.removesuffix(end)
    return name.removeprefix(_PREFIX)


def _by_pattern(patterns: dict[str, Any], module: str) -> Any:
    # PEFT's own rule: the pattern matches the end of the name, from a dot on.
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return None
