"""Call llama.cpp's own converters from its source tree. The only module that knows their flags."""

from __future__ import annotations

import ast
import logging
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import UserError


def write_gguf(
    llama_cpp: Path,
    merged: Path,
    gguf: Path,
    *,
    quantization: str,
    model_name: str,
    dry_run: bool = False,
) -> None:
    """Convert a Hugging Face folder into one GGUF file.

    The converter runs in this process, as `python convert_hf_to_gguf.py` would: starting torch
    and transformers again for each type costs more than converting a small model.

    Args:
        quantization: one of `contract.recipe.CONVERTER_TYPES`.
        model_name: what the file says it is called.
        dry_run: go through all of it, tokenizer and tensors, and write nothing.

    Raises:
        UserError: llama.cpp does not know the architecture or the tokenizer.
    """
    arguments = [str(merged), "--outfile", str(gguf), "--outtype", quantization]
    arguments += ["--model-name", model_name, *(["--dry-run"] if dry_run else [])]
    _run(llama_cpp / "convert_hf_to_gguf.py", arguments)


def write_adapter_gguf(
    llama_cpp: Path, *, base: Path, adapter: Path, gguf: Path, dry_run: bool = False
) -> None:
    """Convert a plain LoRA adapter into a GGUF file that llama.cpp adds to the base when loading.

    Args:
        base: the folder of the base; only its configuration is read.

    Raises:
        UserError: as `write_gguf`.
    """
    arguments = ["--base", str(base), "--outfile", str(gguf), "--outtype", "f32", str(adapter)]
    arguments += ["--dry-run"] if dry_run else []
    _run(llama_cpp / "convert_lora_to_gguf.py", arguments)


def known_architectures(llama_cpp: Path) -> frozenset[str]:
    """The classes of text models that the converter knows, out of its own table.

    Raises:
        LookupError: the table is not where it was (another version of llama.cpp).
    """
    table = llama_cpp / "conversion" / "__init__.py"
    for node in ast.parse(table.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "TEXT_MODEL_MAP":
            assert node.value is not None
            return frozenset(ast.literal_eval(node.value))
    raise LookupError(f"{table} has no TEXT_MODEL_MAP")


def _run(script: Path, arguments: list[str]) -> None:
    try:
        with _as_main(script, arguments), _logging_restored():
            runpy.run_path(str(script), run_name="__main__")
    except NotImplementedError as error:
        raise _refusal(str(error) or "this architecture has no converter") from error
    except SystemExit as end:
        # It calls sys.exit where the architecture is unknown, after logging which.
        if end.code:
            raise _refusal("this architecture has no converter (see the log)") from end


def _refusal(what: str) -> UserError:
    return UserError.one(
        "model_to_fine_tune",
        f"llama.cpp cannot convert it: {what}",
        "Fine-tune a base that llama.cpp serves, with the tokenizer that it came with.",
    )


@contextmanager
def _as_main(script: Path, arguments: list[str]) -> Iterator[None]:
    argv, path = sys.argv, list(sys.path)
    sys.argv = [str(script), *arguments]
    # As `python script` does: its own folder first, for the packages beside it.
    sys.path.insert(0, str(script.parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path


@contextmanager
def _logging_restored() -> Iterator[None]:
    # The converter sets up the root logger for itself.
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
