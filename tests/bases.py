"""Bases in the layouts that public models have, made of the smoke base before its training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import qwen

# https://huggingface.co/Qwen/Qwen2.5-1.5B-Instruct, its config.json.
QWEN_1_5B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
_TOOL_TEMPLATE = "{% if tools %}{{ tools | tojson }}{% endif %}"
# Cuts reasoning out of an answer, and opens it in the prompt.
_R1_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}{% set c = m.content %}{% if '</think>' in c %}"
    "{% set c = c.split('</think>')[-1] %}{% endif %}<|im_start|>assistant\n{{ c }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n"
    "{% endif %}"
)
_TRIM_TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The system's words stand with the last question, as in Mistral's: no form for each turn has that.
_QUESTION_FIRST_TEMPLATE = (
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last and s %}{{ s }}\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_ENDS = {"bos_token_id": 1, "eos_token_id": 4, "pad_token_id": 5}


def qwen_without_weights(folder: Path, scratch: Path) -> Path:
    """Qwen2.5-1.5B-Instruct's configuration and vocabulary; not a byte of weights."""
    tokenizer = qwen.tokenizer(scratch)
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(QWEN_1_5B))
    return folder


def make(variant: str, smoke: Path, folder: Path) -> Path:
    """Write the base of this name, one of `VARIANTS`."""
    shutil.copytree(smoke, folder)
    VARIANTS[variant](folder)
    return folder


def _edit(path: Path, **changes: Any) -> None:
    """Set these keys of a JSON file; None takes one away."""
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    values |= changes
    kept = {key: value for key, value in values.items() if value is not None}
    path.write_text(json.dumps(kept, ensure_ascii=False, indent=1), encoding="utf-8")


def _tokenizer(folder: Path, **changes: Any) -> None:
    _edit(folder / "tokenizer_config.json", **changes)


def _template(folder: Path) -> str:
    return str(json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])


def _config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / "config.json", **changes)


def _eos_of_text(folder: Path) -> None:
    end = "<|endoftext|>"
    turns = ["<|im_start|>", "<|im_end|>"]
    _tokenizer(folder, eos_token=end, pad_token=end, additional_special_tokens=turns)
    for name in ("generation_config.json", "config.json"):
        _edit(folder / name, eos_token_id=5, pad_token_id=5)


def _named_templates(folder: Path) -> None:
    own = _template(folder)
    named = {"default": own, "tool_use": _TOOL_TEMPLATE + own}
    _tokenizer(
        folder, chat_template=[{"name": name, "template": text} for name, text in named.items()]
    )


def _named_templates_folder(folder: Path) -> None:
    own = _template(folder)
    _tokenizer(folder, chat_template=None)
    (folder / "chat_template.jinja").write_text(own)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(_TOOL_TEMPLATE + own)


def _no_default_template(folder: Path) -> None:
    named = [{"name": "rag", "template": _template(folder)}]
    _tokenizer(folder, chat_template=named)


def _token_beyond(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    added = ["<|im_start|>", "<scenario>"]
    tokenizer.add_special_tokens({"additional_special_tokens": added})
    tokenizer.save_pretrained(folder)


def _pad_beyond(folder: Path) -> None:
    _token_beyond(folder)
    _tokenizer(folder, pad_token="<scenario>")


def _of_class(name: str, **settings: Any) -> Callable[[Path], None]:
    """Another model under the same tokenizer."""

    def write(folder: Path) -> None:
        import torch
        import transformers

        torch.manual_seed(3)
        sizes = {
            "vocab_size": 2048,
            "hidden_size": 256,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
        }
        config = getattr(transformers, f"{name}Config")(**{**sizes, **_ENDS, **settings})
        model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder)

    return write


def _gemma_2(folder: Path) -> None:
    """Its embeddings are tied, which its public configuration leaves to the class."""
    _of_class("Gemma2", head_dim=64)(folder)
    _edit(folder / "config.json", tie_word_embeddings=None)


def _unknown_pre_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer of one's own: llama.cpp's converter knows them by a list."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    names = {token: number for number, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=names, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer.model").unlink()
    _tokenizer(folder, tokenizer_class="PreTrainedTokenizerFast")
    _of_class("Qwen2", tie_word_embeddings=True)(folder)


def _without_sentencepiece_model(folder: Path) -> None:
    _of_class("Gemma3Text", head_dim=64, sliding_window=512)(folder)
    (folder / "tokenizer.model").unlink()


def _without_any_byte_fallback(folder: Path) -> None:
    _without_sentencepiece_model(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["byte_fallback"] = False
    (folder / "tokenizer.json").write_text(json.dumps(content))


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


VARIANTS: dict[str, Callable[[Path], None]] = {
    "smoke": lambda folder: None,
    "eos-of-text": _eos_of_text,
    "named-templates": _named_templates,
    "named-templates-folder": _named_templates_folder,
    "no-default-template": _no_default_template,
    "no-template": lambda folder: _tokenizer(folder, chat_template=None),
    "token-beyond": _token_beyond,
    "pad-beyond": _pad_beyond,
    "r1": lambda folder: _tokenizer(folder, chat_template=_R1_TEMPLATE),
    "trim": lambda folder: _tokenizer(folder, chat_template=_TRIM_TEMPLATE),
    "question-first": lambda folder: _tokenizer(folder, chat_template=_QUESTION_FIRST_TEMPLATE),
    "no-architectures": _config(architectures=None),
    "granite": _of_class("Granite", embedding_multiplier=12.0, tie_word_embeddings=True),
    "gemma2": _gemma_2,
    "gemma3-tokenizer-json": _without_sentencepiece_model,
    "gemma3-other-tokenizer": _without_any_byte_fallback,
    "mixtral": _of_class("Mixtral", num_local_experts=4),
    "gpt2": _of_class("GPT2", n_positions=1024, n_ctx=1024, n_embd=256, n_layer=2, n_head=4),
    "unknown-pre-tokenizer": _unknown_pre_tokenizer,
    "vision": _config(vision_config={"model_type": "siglip_vision_model"}, model_type="gemma3"),
    "quantized": _config(quantization_config={"quant_method": "gptq", "bits": 4}),
    "encoder-decoder": _config(
        model_type="t5", architectures=["T5ForConditionalGeneration"], is_encoder_decoder=True
    ),
    "remote-code": _config(
        model_type="our_own", auto_map={"AutoConfig": "configuration_our_own.OurConfig"}
    ),
    "unknown-model-type": _config(model_type="llamma"),
    "no-model-type": _config(model_type=None),
    "not-converted": _config(
        model_type="gpt_neo", architectures=["GPTNeoForCausalLM"], attention_types=None
    ),
    "embedding-model": _config(architectures=["LlamaModel"]),
    "broken-config": _broken_config,
    "wrong-shape": _config(intermediate_size=333),
}
