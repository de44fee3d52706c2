"""The shape of a base from its `config.json` alone: how many weights of which kind, and how wide.

Families differ in a few things: which projections have a bias, whether two are one matrix, how many
norms a layer has. They are data here (`_FAMILIES`), read off transformers' model classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.errors import UserError


class Linear(NamedTuple):
    """One linear layer of each of the model's layers; its weight is (outputs, inputs)."""

    name: str
    inputs: int
    outputs: int
    bias: bool

    @property
    def weights(self) -> int:
        """How many weights it has, without its bias."""
        return self.inputs * self.outputs


class ParameterCounts(NamedTuple):
    """Parameters of a model by kind.

    Attributes:
        embedding: of tokens, and of positions where those are learned.
        head: 0 where it is the embedding's matrix.
        linear: matrices of linear layers, which NF4 quantizes and adapters are added to.
        experts: of a mixture, which transformers 5 holds in one tensor a layer; bitsandbytes and
            PEFT's all-linear pass them over.
        other: norms, biases and routers.
    """

    embedding: int
    head: int
    linear: int
    experts: int
    other: int

    @property
    def total(self) -> int:
        """All of them; a matrix that is used twice counts once."""
        return sum(self)


class _Family(NamedTuple):
    """How the models of a `model_type` differ from Llama's.

    Attributes:
        biases: which linear layers have one; `config` where its keys say so.
        norms: a layer's, as wide as the model.
        head_norms: of queries and keys: none, over a head, or over all heads.
        norm_bias: LayerNorm, which has one, in the place of RMSNorm.
        gated: the feed-forward network has a gate beside its two matrices.
        fused: query, key and value are one matrix; gate and up are one.
        tied: where `config.json` does not say.
        names: of attention's linear layers, and `feed_forward` of the others.
        experts: what the width of a mixture's experts is called; none has experts.
        stepwise_activation: the activation function is computed by several operations.
        parallel: attention and the feed-forward network read the same input.
        eager: transformers computes attention with all its scores in memory.
    """

    biases: Literal["none", "qkv", "all", "config"] = "none"
    norms: int = 2
    head_norms: Literal["none", "head", "all"] = "none"
    norm_bias: bool = False
    gated: bool = True
    fused: bool = False
    tied: bool = False
    names: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    feed_forward: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    experts: str | None = None
    stepwise_activation: bool = False
    parallel: bool = False
    eager: bool = False


_FAMILIES: dict[str, _Family] = {
    "llama": _Family(biases="config"),
    "mistral": _Family(),
    "qwen2": _Family(biases="qkv"),
    "qwen3": _Family(biases="config", head_norms="head"),
    "qwen3_moe": _Family(biases="config", head_norms="head", experts="moe_intermediate_size"),
    "mixtral": _Family(experts="intermediate_size"),
    "gemma": _Family(biases="config", tied=True),
    "gemma2": _Family(biases="config", norms=4, tied=True, eager=True),
    "gemma3_text": _Family(biases="config", norms=4, head_norms="head", tied=True),
    "phi3": _Family(
        fused=True, names=("qkv_proj", "o_proj"), feed_forward=("gate_up_proj", "down_proj")
    ),
    "smollm3": _Family(biases="config", tied=True),
    "granite": _Family(biases="config"),
    "olmo2": _Family(biases="config", head_norms="all"),
    "starcoder2": _Family(
        biases="config", norm_bias=True, gated=False, tied=True, feed_forward=("c_fc", "c_proj")
    ),
    "gpt_neox": _Family(
        biases="all",
        norm_bias=True,
        gated=False,
        fused=True,
        names=("query_key_value", "dense"),
        feed_forward=("dense_h_to_4h", "dense_4h_to_h"),
        parallel=True,
    ),
    "gpt2": _Family(
        biases="all",
        norm_bias=True,
        gated=False,
        fused=True,
        tied=True,
        names=("c_attn", "c_proj"),
        feed_forward=("c_fc", "c_proj"),
        stepwise_activation=True,
    ),
}
# What each value is called, by preference; GPT-2 has names of its own.
_NAMES = {
    "layers": ("num_hidden_layers", "n_layer"),
    "hidden": ("hidden_size", "n_embd"),
    "intermediate": ("intermediate_size", "n_inner"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "vocab": ("vocab_size",),
    "experts": ("num_experts", "num_local_experts"),
    "active_experts": ("num_experts_per_tok",),
}
# Multimodal models hold their language model's values apart, under a name that is not always one.
_TEXT_OF = {"gemma3": "gemma3_text", "mistral3": "mistral"}
_DEFAULT_HEAD_DIM = {"gemma": 256, "gemma2": 256, "gemma3_text": 256, "qwen3": 128}


class ModelShape(BaseModel):
    """The shape of a language model.

    Attributes:
        family: `model_type`, as transformers has it.
        intermediate: width of the feed-forward network.
        head_dim: width of one attention head.
        positions: learned vectors of positions; 0 where positions are rotations.
        tied: the head is the embedding's matrix.
        experts: feed-forward networks that a layer chooses from; 0 where it has the one.
        sliding_window: tokens that a layer with local attention looks back, if there are any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    vocab: int = Field(ge=1)
    tied: bool
    positions: int = 0
    attention_bias: bool = False
    feed_forward_bias: bool = False
    experts: int = 0
    active_experts: int = 0
    expert_intermediate: int = 0
    sliding_window: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelShape | None:
        """The shape that the values of a `config.json` say; None of a family that is not known.

        Of a multimodal model it is that of its language model.
        """
        kind = config.get("model_type")
        if isinstance(text := config.get("text_config"), Mapping):
            outer = str(kind)
            config = {"tie_word_embeddings": config.get("tie_word_embeddings"), **text}
            kind = config.get("model_type", _TEXT_OF.get(outer, outer))
        # Where some layers of a mixture have no experts, the layers are not alike.
        mixed = config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1
        if (family := _FAMILIES.get(str(kind))) is None or mixed:
            return None
        values = {name: _first(config, keys) for name, keys in _NAMES.items()}
        try:
            return cls.model_validate(_completed(str(kind), family, config, values))
        except (ValidationError, TypeError):
            return None

    @classmethod
    def read(cls, folder: Path) -> ModelShape | None:
        """The shape of the model in a folder; None where it is not known.

        Raises:
            UserError: its `config.json` is no JSON object.
        """
        path = folder / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            config = None
        if not isinstance(config, dict):
            raise UserError.one(
                str(path), "is no JSON object", "Download the model again: this file is damaged."
            )
        return cls.of(config)

    @property
    def family_traits(self) -> _Family:
        """What its family has in common."""
        return _FAMILIES[self.family]

    @property
    def query_width(self) -> int:
        """Of all heads' queries together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Of all heads' keys together, or values."""
        return self.kv_heads * self.head_dim

    def attention(self) -> tuple[Linear, ...]:
        """The linear layers of a layer's attention, those that read the same input first."""
        family, query, kv = self.family_traits, self.query_width, self.kv_width
        bias, out_bias = self.attention_bias, self.attention_bias and family.biases != "qkv"
        out = Linear(family.names[-1], query, self.hidden, out_bias)
        if family.fused:
            return Linear(family.names[0], self.hidden, query + 2 * kv, bias), out
        widths = (query, kv, kv)
        named = zip(family.names, widths, strict=False)
        return *(Linear(name, self.hidden, width, bias) for name, width in named), out

    def feed_forward(self) -> tuple[Linear, ...]:
        """The linear layers of a layer's feed-forward network; none where it has experts."""
        if self.experts:
            return ()
        family, width, bias = self.family_traits, self.intermediate, self.feed_forward_bias
        *into, out = family.feed_forward
        each = width * (2 if family.gated and family.fused else 1)
        return (
            *(Linear(name, self.hidden, each, bias) for name in into),
            Linear(out, width, self.hidden, bias),
        )

    def linears(self) -> tuple[Linear, ...]:
        """All linear layers of one layer."""
        return *self.attention(), *self.feed_forward()

    def parameters(self) -> ParameterCounts:
        """How many parameters there are of each kind."""
        linears = self.linears()
        family = self.family_traits
        per_norm = 2 if family.norm_bias else 1
        per_layer = per_norm * family.norms * self.hidden
        per_layer += sum(linear.outputs for linear in linears if linear.bias)
        per_layer += {
            "none": 0,
            "head": 2 * self.head_dim,
            "all": self.query_width + self.kv_width,
        }[family.head_norms]
        # The router's matrix is a parameter of its own, as the experts' are.
        per_layer += self.experts * self.hidden
        return ParameterCounts(
            embedding=(self.vocab + self.positions) * self.hidden,
            head=0 if self.tied else self.vocab * self.hidden,
            linear=self.layers * sum(linear.weights for linear in linears),
            experts=self.layers * self.experts * 3 * self.hidden * self.expert_intermediate,
            other=self.layers * per_layer + per_norm * self.hidden,
        )


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((config[key] for key in keys if config.get(key) is not None), None)


def _completed(
    kind: str, family: _Family, config: Mapping[str, Any], values: dict[str, Any]
) -> dict[str, Any]:
    """The values of a shape, with what a `config.json` may leave out."""
    if values["intermediate"] is None and kind == "gpt2":
        values["intermediate"] = 4 * values["hidden"]
    if values["kv_heads"] is None:
        values["kv_heads"] = values["heads"]
    if values["head_dim"] is None:
        values["head_dim"] = _DEFAULT_HEAD_DIM.get(kind, values["hidden"] // values["heads"])
    if family.experts is None:
        values.update(experts=0, active_experts=0)
    else:
        values["expert_intermediate"] = config.get(family.experts)
    tied = config.get("tie_word_embeddings")
    by_config = family.biases == "config"
    # Of StarCoder2, one key for all of them; of GPT-NeoX and Llama, one for attention.
    attention_bias = config.get("attention_bias", config.get("use_bias", family.norm_bias))
    feed_forward_bias = config.get("mlp_bias", config.get("use_bias", family.norm_bias))
    windowed = config.get("use_sliding_window", True)
    return {
        **values,
        "family": kind,
        "tied": family.tied if tied is None else tied,
        "positions": config.get("n_positions", 1024) if kind == "gpt2" else 0,
        "attention_bias": bool(attention_bias) if by_config else family.biases != "none",
        "feed_forward_bias": bool(feed_forward_bias) if by_config else family.biases == "all",
        "sliding_window": config.get("sliding_window") if windowed else None,
    }
