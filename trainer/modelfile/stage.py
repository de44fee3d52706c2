"""Stage `modelfile`: tell Ollama which template, stop tokens and parameters the model needs."""

from __future__ import annotations

from contract import paths
from contract.atomic_write import atomic_write
from contract.chat_format import ChatFormat
from contract.paths import StagePaths
from contract.recipe import Recipe
from contract.results.modelfile import ModelfileResult
from contract.serving import Serving
from trainer.entrypoint import Reporter
from trainer.loading import load_tokenizer
from trainer.modelfile.modelfile_text import losses, modelfile_text
from trainer.modelfile.template import ChatForm, chat_form


def modelfile(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `serving.json`, and `Modelfile`, which says the same to `ollama create -f`."""
    recipe = Recipe.read(stage_paths.run / paths.RECIPE)
    tokenizer = load_tokenizer(stage_paths.run / paths.MERGED)
    chat_format = ChatFormat.read(stage_paths.run / paths.CHAT_FORMAT)
    form = None if chat_format.needs_template_engine else chat_form(tokenizer)
    if form is None:
        why = chat_format.needs_template_engine or "the base's chat template does more than that"
        reporter.note(
            "Ollama's template language can put text before and after each turn, and "
            f"{why}: the Modelfile relies on the GGUF's template, which Ollama uses from 0.30 on"
        )
    stops = chat_format.ends
    serving = serving_of(recipe, form, stops)
    for note in losses(serving):
        reporter.note(f"Modelfile: {note}")
    serving.write(stage_paths.output / paths.SERVING)
    atomic_write(
        stage_paths.output / paths.MODELFILE, modelfile_text(recipe.output_model_name, serving)
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
