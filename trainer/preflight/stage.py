"""Stage `preflight`: find in seconds what would end a run hours later.

Nothing but the base's configuration, its tokenizer and the names of its weights is read; every
later stage's demands are gone through with an adapter of zeros, and all problems are said at once.
"""

from __future__ import annotations

import math
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from contract import paths
from contract.chat_format import ChatFormat
from contract.errors import Problem, UserError
from contract.paths import StagePaths
from contract.recipe import PreflightSection, Recipe
from contract.results.preflight import PreflightResult
from trainer.architecture import attention_of, context_tokens, load_config, with_architecture
from trainer.chat_template import chat_format
from trainer.convert.llama_cpp import known_architectures
from trainer.entrypoint import Reporter
from trainer.loading import declared_ends, load_tokenizer
from trainer.modelfile.modelfile_text import can_be_said
from trainer.modelfile.template import chat_form
from trainer.preflight import chain, resources
from trainer.preflight.configuration import (
    check_converter,
    check_model_class,
    check_not_quantized,
    read_configuration,
)
from trainer.preflight.stand_in import empty_model, write_folder
from trainer.preflight.tokenizer import check_special_tokens, tokenizer_notes, tokens_beyond
from trainer.weights import saved_weights, weights

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_STEPS = 5


def preflight(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Say what the base is, or everything that speaks against it.

    Raises:
        UserError: every problem that a later stage would have had.
    """
    recipe = Recipe.read(stage_paths.run / paths.RECIPE).section(PreflightSection)
    problems: list[Problem] = []
    result = _inspect(stage_paths, recipe, problems, reporter)
    if problems or result is None:
        raise UserError(problems)
    for note in result.notes:
        reporter.note(note)
    reporter.result(result)


def _inspect(
    stage_paths: StagePaths, recipe: PreflightSection, problems: list[Problem], reporter: Reporter
) -> PreflightResult | None:
    """Go as far as the base allows; None, and problems, where that is not to the end."""
    base, llama_cpp = stage_paths.require("base"), stage_paths.require("llama_cpp")
    report = reporter.progress_callback("checking the base", "steps")
    report(0, _STEPS)
    values = read_configuration(base)
    if isinstance(values, Problem):
        problems.append(values)
        return None
    values = with_architecture(values)
    problems += check_not_quantized(values)
    problems += check_model_class(values) or check_converter(values, known_architectures(llama_cpp))
    report(1, _STEPS)
    read = _read_tokenizer(base, recipe, problems)
    if problems or read is None:
        return None
    tokenizer, found_format, notes = read
    go_template = _go_template(tokenizer, found_format, recipe)
    report(2, _STEPS)
    made = _model(base, problems)
    if made is None:
        return None
    config, model = made
    problems += check_special_tokens(tokenizer, found_format, config)
    context = context_tokens(config)
    problems += resources.check_context(recipe, context)
    if recipe.system_prompt and not can_be_said(recipe.system_prompt):
        problems.append(
            Problem(
                where="system_prompt",
                what="has a line that ends with three quotes, which no Modelfile can say",
                remedy="Write that line in another way.",
            )
        )
    notes += [*tokenizer_notes(tokenizer, config), *resources.context_notes(recipe, context)]
    report(3, _STEPS)
    with tempfile.TemporaryDirectory() as scratch:
        stand_in = Path(scratch) / "base"
        try:
            write_folder(base, tokenizer, found_format, saved_weights(model), stand_in)
        except UserError as error:
            problems += error.problems
            return None
        found = weights(stand_in)
        parameters = sum(math.prod(weight.shape) for weight in found.values())
        problems += resources.check_disk(recipe, found, stage_paths.run)
        problems += resources.check_host_memory(found)
        notes += resources.block_notes(recipe, found)
        unknown = chain.check_targets(recipe, model)
        problems += unknown
        adapter = None
        if not unknown:
            adapter = chain.make_adapter(recipe, model, Path(scratch) / "adapter", problems)
        if adapter is not None:
            problems += chain.check_merge(adapter, stand_in, found)
            problems += chain.check_served_adapter(recipe, adapter)
        report(4, _STEPS)
        beyond = tokens_beyond(tokenizer, config)
        unconverted = chain.check_conversion(llama_cpp, stand_in, Path(scratch), beyond)
        problems += unconverted
        if adapter is not None and not unconverted:
            problems += chain.check_adapter_conversion(llama_cpp, stand_in, adapter, Path(scratch))
    report(_STEPS, _STEPS)
    return PreflightResult(
        architecture=values["architectures"][0],
        parameters=parameters,
        attention=attention_of(config),
        adapted=len(adapter.modules) if adapter is not None else 0,
        go_template=go_template,
        notes=notes,
    )


def _read_tokenizer(
    base: Path, recipe: PreflightSection, problems: list[Problem]
) -> tuple[PreTrainedTokenizerBase, ChatFormat, list[str]] | None:
    try:
        tokenizer = load_tokenizer(base)
    # transformers raises whatever its parts do.
    except Exception as error:
        # Of an unknown model, the tokenizer's class may be unknown, too.
        if not problems:
            problems.append(_cannot("load its tokenizer", error))
        return None
    try:
        found = chat_format(
            tokenizer,
            declared_ends(base),
            thinking=recipe.thinking,
            # What the data have is seen in `prepare`.
            reasoning_in_data=False,
        )
    except UserError as error:
        problems += error.problems
        return None
    notes = []
    if isinstance(tokenizer.chat_template, dict):
        others = ", ".join(name for name in tokenizer.chat_template if name != "default")
        notes = [f"of the base's chat templates, 'default' is used (not {others})"]
    return tokenizer, found, notes


def _go_template(
    tokenizer: PreTrainedTokenizerBase, found: ChatFormat, recipe: PreflightSection
) -> bool | None:
    if found.thinking is not None and recipe.thinking == "auto":
        # With reasoning in the data, the template is settled in another way.
        return None
    tokenizer.chat_template = found.template
    return chat_form(tokenizer) is not None


def _model(base: Path, problems: list[Problem]) -> tuple[PreTrainedConfig, PreTrainedModel] | None:
    try:
        config = load_config(base)
        return config, empty_model(config)
    # A class's own code reads the values, and fails in its own ways.
    except Exception as error:
        problems.append(_cannot("build the model of its config.json", error))
        return None


def _cannot(what: str, error: Exception) -> Problem:
    traceback.print_exc()
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return Problem(
        where="model_to_fine_tune",
        what=f"the locked transformers cannot {what}: {said}",
        remedy="Use a complete Hugging Face folder of an architecture that transformers has.",
    )
