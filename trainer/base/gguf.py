"""Make the ordinary Hugging Face folder of a base of which there is a GGUF file alone.

transformers reads the file. What is stored are the file's own weights: in 16 bits where each of
them is one of 16 bits, and otherwise in float32, because what a quantized type stands for has more
digits than bf16 holds. They are then the numbers that llama.cpp computes with.
"""

from __future__ import annotations

import json
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.atomic_write import atomic_write
from contract.digest import digest_of_file
from contract.disk_space import check_disk_space
from contract.errors import UserError
from contract.gguf_header import GgufHeader, check_chat_template
from trainer.base.gguf_settings import ROPE_FACTORS, restore_settings
from trainer.base.gguf_vocabulary import write_vocabulary
from trainer.memory import check_memory
from trainer.weights import saved_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_SHARD_BYTES = 5 * 10**9
# Each weight is read in float32, and stored in 16 bits beside that where it is one of those.
_BYTES_WHILE_READ, _BYTES_WHEN_NARROW = 5, 7
_PROGRAM_BYTES = 10**9
_ENDS = ("eos", "eot", "eom")


OnProgress = Callable[[int, int], None]


def read_gguf(
    gguf: Path,
    sha256: str,
    folder: Path,
    *,
    stops: Sequence[str],
    on_tensor: OnProgress,
    on_file: OnProgress,
    note: Callable[[str], None],
) -> GgufHeader:
    """Write the model folder, its weights last, and return what the file says of itself.

    Args:
        sha256: what the file's digest must be.
        stops: texts that end an answer beside the file's own ends, where the tokenizer knows them
            as one token.
        on_tensor: is told how many of all tensors are read.
        on_file: is told how many of all files are written.
        note: is told what a person should see.

    Raises:
        UserError: the file is not the one that was meant, is of a family that transformers does
            not read, or there is too little memory or disk space.
    """
    header = GgufHeader.read(gguf)
    check_chat_template(gguf, header)
    if (found := digest_of_file(gguf)) != sha256:
        raise UserError.one(
            f"{gguf}",
            f"has the SHA-256 {found}, and should have {sha256}",
            "Copy, fetch or pull it again.",
        )
    check_family(header.architecture)
    _check_resources(header, folder)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        # A blob of Ollama's has no suffix, and transformers goes by it.
        file = Path(scratch) / "model.gguf"
        file.symlink_to(gguf.absolute())
        config, model = _load(file, header, on_tensor)
        weights = saved_weights(model)
        _check_complete(header, weights)
        dtype = _narrowest_dtype(header, weights.values())
        _write_config(config, model, dtype, folder)
        tokenizer = write_vocabulary(file, header, folder)
    ends = _ends(tokenizer, header, stops, note)
    _write_json(folder / "generation_config.json", {"eos_token_id": ends})
    _write_weights(weights, dtype, folder, on_file)
    return header


def check_family(architecture: str) -> None:
    """See that transformers reads files of this family.

    Raises:
        UserError: it does not.
    """
    known = _known_families()
    if _plain(architecture) not in {_plain(name) for name in known}:
        raise UserError.one(
            "model_to_fine_tune",
            f"the locked transformers reads no GGUF file of the family {architecture!r}",
            f"Use the Hugging Face model that it was made from. Read are: {', '.join(known)}.",
        )


def _known_families() -> list[str]:
    from transformers.integrations.gguf import GGUF_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    sections = {"general", "tokenizer"}
    return sorted({*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_ARCHS} - sections)


def _plain(architecture: str) -> str:
    """A family's name as both sides would write it: `qwen2moe` is `qwen2_moe`."""
    return architecture.replace("_", "").replace("-", "")


def _check_resources(header: GgufHeader, folder: Path) -> None:
    check_memory(
        "reading the GGUF file into a Hugging Face model",
        (_BYTES_WHEN_NARROW if header.is_plain else _BYTES_WHILE_READ) * header.parameters
        + _PROGRAM_BYTES,
    )
    check_disk_space(
        folder.parent,
        (2 if header.is_plain else 4) * header.parameters,
        where="the cache",
        purpose="the base that is read from the GGUF file takes",
        remedy="Free some space and run the same command again.",
    )


def _load(
    gguf: Path, header: GgufHeader, on_tensor: OnProgress
) -> tuple[PreTrainedConfig, PreTrainedModel]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    asked: Any = {"gguf_file": gguf.name, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(gguf.parent, **asked)
        restore_settings(config, gguf, header)
        with _watched(len(header.tensors), on_tensor):
            model, found = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                config=config,
                dtype=torch.float32,
                # Every weight as a number, whatever kernels this environment has.
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
                **asked,
            )
    # Of a family that it has, a file may be of a form that it does not expect.
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        traceback.print_exc()
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _unread(header, said) from error
    if missing := sorted(found["missing_keys"]):
        raise _unread(header, f"it finds no {missing[0]} in it")
    return config, model


def _check_complete(header: GgufHeader, weights: Mapping[str, torch.Tensor]) -> None:
    """See that every weight of the file is one of the model's.

    What transformers has no name for, it drops without a word.
    """
    read = sum(weight.numel() for weight in weights.values())
    listed = sum(tensor.parameters for tensor in header.tensors if tensor.name != ROPE_FACTORS)
    if read != listed:
        raise _unread(header, f"it takes {read:,} of {listed:,} weights")


def _unread(header: GgufHeader, what: str) -> UserError:
    return UserError.one(
        "model_to_fine_tune",
        f"the locked transformers cannot read this GGUF file of the family "
        f"{header.architecture!r}: {what}",
        "Use the Hugging Face model that it was made from.",
    )


@contextmanager
def _watched(total: int, on_tensor: OnProgress) -> Iterator[None]:
    """Say how far transformers is, in place of its own bar."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def counted(tensors: Iterable[Any], **_: Any) -> Iterator[Any]:
        for number, tensor in enumerate(tensors):
            on_tensor(number, total)
            yield tensor

    own = reader.tqdm
    reader.tqdm = counted
    try:
        yield
    finally:
        reader.tqdm = own
    on_tensor(total, total)


def _narrowest_dtype(header: GgufHeader, weights: Iterable[torch.Tensor]) -> torch.dtype:
    """The file's own 16-bit type where it holds every weight exactly; float32 otherwise."""
    import torch

    kinds = {"F16": torch.float16, "BF16": torch.bfloat16}
    kind = kinds.get(header.weight_type)
    if kind is None or not header.is_plain:
        return torch.float32
    exact = all(bool((weight.to(kind).float() == weight.float()).all()) for weight in weights)
    return kind if exact else torch.float32


def _ends(
    tokenizer: PreTrainedTokenizerBase,
    header: GgufHeader,
    stops: Sequence[str],
    note: Callable[[str], None],
) -> list[int]:
    """The ids that end an answer, the file's own ones first."""
    declared = [header.settings.get(f"tokenizer.ggml.{name}_token_id") for name in _ENDS]
    ids = [int(id) for id in declared if id is not None]
    for stop in stops:
        found = tokenizer.encode(stop, add_special_tokens=False)
        if len(found) == 1 and found[0] in tokenizer.added_tokens_decoder:
            ids.append(int(found[0]))
        else:
            note(f"the stop {stop!r} is no token of the base's and is not used")
    return list(dict.fromkeys(ids))


def _write_config(
    config: PreTrainedConfig,
    model: PreTrainedModel,
    dtype: torch.dtype,
    folder: Path,
) -> None:
    values = config.to_diff_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        values.pop(name, None)
    # llama.cpp's converter goes by it, and a GGUF file does not have it.
    values["architectures"] = [type(model).__name__]
    values["dtype"] = str(dtype).removeprefix("torch.")
    _write_json(folder / "config.json", values)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, ensure_ascii=False, indent=2, sort_keys=True)
    atomic_write(path, text + "\n")


def _write_weights(
    weights: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    folder: Path,
    on_file: OnProgress,
) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    stored = {name: weight.detach().to(dtype).contiguous() for name, weight in weights.items()}
    split = split_torch_state_dict_into_shards(stored, max_shard_size=_SHARD_BYTES)
    files = split.filename_to_tensors
    for number, (file, names) in enumerate(files.items()):
        on_file(number, len(files))
        save_file({name: stored[name] for name in names}, folder / file, metadata={"format": "pt"})
        # It is written for its owner alone, who in a container may be another user.
        (folder / file).chmod(0o644)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        _write_json(folder / "model.safetensors.index.json", index)
    on_file(len(files), len(files))
