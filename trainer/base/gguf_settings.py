"""Settings of a GGUF file that transformers' reader leaves out of the model's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import UserError
from contract.gguf_header import GgufHeader

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

# By how much each frequency of Llama 3's positions is divided: no weight, but a setting.
ROPE_FACTORS = "rope_freqs.weight"
# Of Llama 3.1, 3.2 and 3.3: https://huggingface.co/meta-llama, config.json.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3_CONTEXT_TOKENS = 8192
_LLAMA3_FACTORS = (8.0, 32.0, 16.0, 4.0, 2.0)
_CLOSE = 1e-5


def restore_settings(config: PreTrainedConfig, gguf: Path, header: GgufHeader) -> None:
    """Put into the configuration what the file says and the reader leaves out.

    Raises:
        UserError: the file scales its positions in a way that is not known here.
    """
    kind = header.settings.get(f"{header.architecture}.rope.scaling.type", "none")
    if kind != "none":
        raise _scaled(str(kind))
    # Of Qwen 3 the reader takes the width that public models have.
    width = header.settings.get(f"{header.architecture}.attention.key_length")
    if width is not None and hasattr(config, "head_dim"):
        config.head_dim = int(width)
    if any(tensor.name == ROPE_FACTORS for tensor in header.tensors):
        _restore_llama3_rope(config, gguf)


def _restore_llama3_rope(config: PreTrainedConfig, gguf: Path) -> None:
    import torch
    from gguf import GGUFReader

    stored = next(t for t in GGUFReader(gguf).tensors if t.name == ROPE_FACTORS)
    expected = torch.tensor(stored.data.astype("float32")).flatten()
    theta = float((config.rope_parameters or {})["rope_theta"])
    for factor in _LLAMA3_FACTORS:
        parameters = {
            "rope_type": "llama3",
            "rope_theta": theta,
            "factor": factor,
            "original_max_position_embeddings": _LLAMA3_CONTEXT_TOKENS,
            **_LLAMA3,
        }
        if torch.allclose(_divisors(config, parameters), expected, rtol=_CLOSE, atol=_CLOSE):
            config.rope_parameters = parameters
            return
    raise _scaled("not by the factors of any Llama 3")


def _scaled(how: str) -> UserError:
    return UserError.one(
        "model_to_fine_tune",
        f"its GGUF file scales positions ({how}), which the locked transformers does not read",
        "Use the Hugging Face model that it was made from.",
    )


def _divisors(config: PreTrainedConfig, parameters: dict[str, object]) -> torch.Tensor:
    """What transformers divides each frequency by, with these parameters."""
    import copy

    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled = copy.deepcopy(config)
    scaled.rope_parameters = parameters
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](scaled, "cpu")
    width = int(config.head_dim)
    plain = 1.0 / (float(str(parameters["rope_theta"])) ** (_arange(width) / width))
    divisors: torch.Tensor = plain / frequencies
    return divisors


def _arange(width: int) -> torch.Tensor:
    import torch

    return torch.arange(0, width, 2, dtype=torch.int64).float()
