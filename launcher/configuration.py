"""Resolve a recipe: profile, then configuration file, then `--set`, into one frozen object.

Nothing downstream looks at a profile, a configuration file or a flag again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from contract import exact_json
from contract.errors import Problem, UserError, did_you_mean, unknown_name
from contract.metrics import METRICS
from contract.recipe import Recipe
from contract.row_forms import COLUMN_NAMES
from launcher.project import PROFILES, ROOT, shown
from launcher.runtime.gpu_generations import GENERATIONS

# When the first of these is given anew, what was said about the old one no longer holds.
_COMPANIONS = {
    "dataset_path": ("evaluation_path", "columns"),
    "model_to_fine_tune": ("model_revision",),
}
# What other trainers call our keys, for a hint instead of a shrug.
_ELSEWHERE = {
    "base_model": "model_to_fine_tune",
    "model_name": "model_to_fine_tune",
    "model_name_or_path": "model_to_fine_tune",
    "output_dir": "output_model_name",
    "dataset": "dataset_path",
    "data_path": "dataset_path",
    "eval_dataset": "evaluation_path",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "lr": "learning_rate",
    "per_device_train_batch_size": "batch_size",
    "micro_batch_size": "batch_size",
    "lora_r": "lora_rank",
    "r": "lora_rank",
    "target_modules": "lora_target_modules",
    "max_seq_length": "max_length",
    "cutoff_len": "max_length",
    "sequence_len": "max_length",
    "val_size": "held_out_fraction",
    "bf16": "precision",
    "fp16": "precision",
    "mixed_precision": "precision",
    "load_in_4bit": "quantize_base",
    "lr_scheduler": "lr_scheduler_type",
    "warmup_steps": "warmup_ratio",
    "num_threads": "cpu_threads",
}


@dataclass(frozen=True)
class Layer:
    """Some keys and where they were said."""

    origin: str
    values: dict[str, Any]


def resolve(
    profile: str,
    *,
    config: Path | None = None,
    settings: Sequence[str] = (),
    data: str | None = None,
) -> Recipe:
    """The recipe for these words of the user.

    Args:
        profile: a name in `configs/profiles/`.
        config: a JSON or YAML file; None takes the one that the profile names, if any.
        settings: `key=value` or `key.key=value`, values in YAML's form.
        data: a dataset in place of the configured one.

    Raises:
        UserError: every unknown key and every bad value, each with its origin.
    """
    base = _profile_layer(profile)
    named = base.values.pop("config", None)
    path = config or (ROOT / named if named else None)
    layers = [base]
    if path is not None:
        layers.append(Layer(shown(path.resolve()), _read_file(path)))
    if data is not None:
        layers.append(Layer("--data", {"dataset_path": data}))
    layers += [_setting(text) for text in settings]
    return _validated(profile, layers)


def profiles() -> list[str]:
    """The names of the shipped profiles."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def profile_values(profile: str) -> dict[str, Any]:
    """The keys that a profile states, such as `lock`, `device` and `precision`.

    Raises:
        UserError: there is no such profile.
    """
    return _profile_layer(profile).values


def read_yaml(path: Path) -> Any:
    """The content of a YAML 1.2 file (in which 2e-4 is a number).

    Raises:
        UserError: it is not valid YAML.
    """
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{shown(path)}:{mark.line + 1}" if mark else shown(path)
        raise UserError.one(where, f"is not valid YAML: {error.problem}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError.one(shown(path), f"is not valid YAML: {error}") from None


def _profile_layer(profile: str) -> Layer:
    path = PROFILES / f"{profile}.yaml"
    if profile not in profiles():
        raise UserError([unknown_name(profile, profiles(), kind="profile", where="--profile")])
    return Layer(shown(path), _as_keys(read_yaml(path), path))


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError.one("--config", f"there is no file {shown(path)}")
    if path.suffix.lower() in (".yaml", ".yml"):
        return _as_keys(read_yaml(path), path)
    if path.suffix.lower() != ".json":
        raise UserError.one(
            shown(path),
            f"{path.suffix or 'no suffix'} is not a configuration format",
            "Use .json or .yaml.",
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        # What YAML refuses as well: one key twice, half characters.
        flaw = exact_json.flaw(exact_json.loads(text))
        content = json.loads(text) if flaw is None else None
    except RecursionError:
        flaw = exact_json.TOO_DEEP
    except (ValueError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", 1)
        raise UserError.one(f"{shown(path)}:{line}", f"is not valid JSON: {error}") from None
    if flaw is not None:
        raise UserError.one(shown(path), flaw.what, flaw.remedy)
    return _as_keys(content, path)


def _as_keys(content: Any, path: Path) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError.one(shown(path), "is not a mapping of keys to values")
    # JSON has no comments; keys that begin with # have always stood in for them.
    return {str(key): value for key, value in content.items() if not str(key).startswith("#")}


def _setting(text: str) -> Layer:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError.one(
            "--set", f"{text!r} is not key=value", "For example: --set learning_rate=1e-4."
        )
    try:
        parsed: Any = YAML(typ="safe").load(value) if value else None
    except YAMLError:
        # A Windows path or a text with a colon is meant as it stands.
        parsed = value
    *outer, last = key.strip().split(".")
    values: dict[str, Any] = {last: parsed}
    for name in reversed(outer):
        values = {name: values}
    return Layer(f"--set {key.strip()}", values)


def _validated(profile: str, layers: Sequence[Layer]) -> Recipe:
    merged: dict[str, Any] = {"profile": profile}
    origins: dict[str, str] = {}
    problems = []
    for layer in layers:
        for key in layer.values:
            if key not in Recipe.model_fields:
                problems.append(_unknown_key(layer.origin, key))
        known = {key: value for key, value in layer.values.items() if key in Recipe.model_fields}
        _reset_companions(merged, known)
        for key, value in known.items():
            merged[key] = _laid_over(merged.get(key), value)
            origins[key] = layer.origin
    problems += _unknown_names(merged, origins)
    try:
        recipe = Recipe(**merged)
    except ValidationError as error:
        hinted = {problem.remedy for problem in problems}
        problems += [
            problem
            for problem in as_problems(
                error, lambda key: origins.get(key, layers[-1].origin), Recipe.model_fields
            )
            # Said already, from the other side: the key stands there under another name.
            if f"Did you mean {problem.where.rpartition(': ')[2]}?" not in hinted
        ]
        raise UserError(problems) from None
    if problems:
        raise UserError(problems)
    return recipe


def _reset_companions(merged: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, companions in _COMPANIONS.items():
        if key in layer and key in merged:
            for companion in companions:
                merged[companion] = {} if companion == "columns" else None


def _laid_over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **above}
    return above


def _unknown_key(origin: str, key: str) -> Problem:
    known = _ELSEWHERE.get(key)
    if known is None:
        remedy = did_you_mean(key, Recipe.model_fields, "configs/README.md lists the keys.")
    else:
        remedy = f"Did you mean {known}?"
    return Problem(where=f"{origin}: {key}", what="unknown key", remedy=remedy)


def _unknown_names(merged: Mapping[str, Any], origins: Mapping[str, str]) -> list[Problem]:
    """Values that name an entry of a table, and name none."""
    columns = merged.get("columns")
    targets = columns if isinstance(columns, dict) else {}
    named: list[tuple[str, str, Any, Collection[str]]] = [
        ("metric", "metric", merged.get("metric"), METRICS),
        ("lock", "lock", merged.get("lock"), GENERATIONS),
        *(("columns", "target column", target, COLUMN_NAMES) for target in targets),
    ]
    return [
        unknown_name(name, known, kind=kind, where=f"{origins[key]}: {key}")
        for key, kind, name, known in named
        if isinstance(name, str) and name not in known
    ]


def as_problems(
    error: ValidationError, origin_of: Callable[[str], str], known: Collection[str]
) -> list[Problem]:
    """What pydantic has against a file's keys and values, each a sentence.

    Args:
        error: what it raised.
        origin_of: a key of the file -> where it was said.
        known: the keys that there are.
    """
    problems = []
    for detail in error.errors():
        # What ends with ']' is no key, but the type that was tried: `list[str]`.
        path = [str(part) for part in detail["loc"] if not str(part).endswith("]")]
        origin = origin_of(path[0] if path else "")
        where = f"{origin}: {'.'.join(path)}" if path else origin
        problems.append(_as_problem(detail, where, known))
    return problems


def _as_problem(detail: ErrorDetails, where: str, known: Collection[str]) -> Problem:
    if detail["type"] == "missing":
        return Problem(where=where, what="is missing")
    if detail["type"] == "extra_forbidden":
        remedy = did_you_mean(str(detail["loc"][-1]), known, f"Known: {', '.join(known)}.")
        return Problem(where=where, what="unknown key", remedy=remedy)
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if detail["type"] == "value_error" else f" (got {_short(detail['input'])})"
    return Problem(where=where, what=f"{message[0].lower()}{message[1:]}{given}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
