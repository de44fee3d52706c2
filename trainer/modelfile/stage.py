"""The story of `modelfile`: tell Ollama how the tuned model wants to be spoken to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.contract import places as names
from trainer.contract.places import Places
from trainer.contract.recipe import Recipe
from trainer.contract.whole_file import write_whole
from trainer.entrypoint import Reporter
from trainer.modelfile.template import ChatForm, chat_form

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def modelfile(places: Places, reporter: Reporter) -> None:
    """Make `Modelfile`, which `ollama create NAME -f Modelfile` takes as it is."""
    from transformers import AutoTokenizer

    recipe = Recipe.read(places.run / names.RECIPE)
    merged = places.run / names.MERGED
    tokenizer = AutoTokenizer.from_pretrained(merged, local_files_only=True)
    form = chat_form(tokenizer)
    if form is None:
        reporter.note(
            "the base's chat template has no equal in Ollama's template language: "
            "the Modelfile leaves it to the GGUF's own, which Ollama 0.30 and newer use"
        )
    stops = stop_tokens(tokenizer, merged, form)
    write_whole(places.run / names.MODELFILE, modelfile_text(recipe, form, stops))
    reporter.result({"template": form is not None, "stops": stops})


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


def modelfile_text(recipe: Recipe, form: ChatForm | None, stops: list[str]) -> str:
    """The Modelfile's lines; FROM is relative to the file itself."""
    served = names.gguf_name(recipe.quantizations[0])
    lines = [
        f"# {recipe.output_model_name}, made by Affineur. To import it:",
        f"#   ollama create {recipe.output_model_name} -f Modelfile",
        f"FROM ./{served.as_posix()}",
    ]
    if form is not None:
        lines.append(f'TEMPLATE """{form.go_template()}"""')
    if recipe.system_prompt:
        lines.append(f"SYSTEM {_quoted(recipe.system_prompt)}")
    lines += [f"PARAMETER stop {json.dumps(stop)}" for stop in stops]
    lines += [
        f"PARAMETER num_ctx {recipe.num_ctx}",
        f"PARAMETER num_predict {recipe.num_predict}",
        f"PARAMETER temperature {recipe.temperature:g}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    # Three quotes would end the block early; a space between them reads the same.
    return '"""' + text.replace('"""', '"" "') + '"""'
