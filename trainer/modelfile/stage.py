"""Stage `modelfile`: tell Ollama which template, stop tokens and parameters the model needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from contract import paths
from contract.atomic_write import atomic_write
from contract.paths import StagePaths
from contract.recipe import Recipe
from contract.results.modelfile import ModelfileResult
from contract.serving import Serving
from trainer.entrypoint import Reporter
from trainer.loading import load_tokenizer
from trainer.modelfile.modelfile_text import losses, modelfile_text
from trainer.modelfile.template import ChatForm, chat_form

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def modelfile(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `serving.json`, and `Modelfile`, which says the same to `ollama create -f`."""
    recipe = Recipe.read(stage_paths.run / paths.RECIPE)
    merged = stage_paths.run / paths.MERGED
    tokenizer = load_tokenizer(merged)
    form = chat_form(tokenizer)
    if form is None:
        reporter.note(
            "the base's chat template has no equivalent in Ollama's template language: "
            "the Modelfile relies on the one in the GGUF, which Ollama uses from 0.30 on"
        )
    stops = stop_tokens(tokenizer, merged, form)
    serving = serving_of(recipe, form, stops)
    for note in losses(serving):
        reporter.note(f"Modelfile: {note}")
    serving.write(stage_paths.run / paths.SERVING)
    atomic_write(
        stage_paths.run / paths.MODELFILE, modelfile_text(recipe.output_model_name, serving)
    )
    reporter.result(ModelfileResult(template=form is not None, stops=stops))


def serving_of(recipe: Recipe, form: ChatForm | None, stops: list[str]) -> Serving:
    """The server's settings, from the recipe and the base's chat template."""
    served = recipe.quantizations[0]
    with_adapter = recipe.serving == "adapter"
    gguf = paths.base_gguf_name(served) if with_adapter else paths.gguf_name(served)
    return Serving(
        gguf=gguf.as_posix(),
        adapter=paths.ADAPTER_GGUF.as_posix() if with_adapter else None,
        template=form.go_template() if form is not None else None,
        system=recipe.system_prompt,
        parameters={
            "stop": stops,
            "num_ctx": recipe.num_ctx,
            "num_predict": recipe.num_predict,
            # By default, Ollama 0.6.5 penalises repetition by 1.1, and JSON repeats itself.
            "repeat_penalty": 1,
            # 0 and not 0.0, as people write it.
            "temperature": int(recipe.temperature)
            if recipe.temperature.is_integer()
            else recipe.temperature,
        },
    )


def stop_tokens(
    tokenizer: PreTrainedTokenizerBase, merged: Path, form: ChatForm | None
) -> list[str]:
    """The special tokens that end a turn: the template's, the tokenizer's, the model's own."""
    found = []
    if form is not None and form.assistant_suffix.strip() in tokenizer.all_special_tokens:
        found.append(form.assistant_suffix.strip())
    if tokenizer.eos_token:
        found.append(str(tokenizer.eos_token))
    path = merged / "generation_config.json"
    declared = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
    for token in declared if isinstance(declared, list) else [declared]:
        if token is not None:
            found.append(str(tokenizer.convert_ids_to_tokens(token)))
    return list(dict.fromkeys(found))
