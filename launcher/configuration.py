"""Resolve a recipe: profile, then configuration file, then `--set`, into one frozen object.

Nothing downstream looks at a profile, a configuration file or a flag again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from launcher.other_trainers import FOREIGN_KEYS, foreign_key
from launcher.project import PROFILES, ROOT, shown
from launcher.runtime import gpus, processor
from launcher.runtime.gpu_generations import GENERATIONS
from launcher.translation import Translation, translated

# When the first of these is given anew, what was said about the old one no longer holds.
_COMPANIONS = {
    "dataset_path": ("evaluation_path", "columns"),
    "model_to_fine_tune": ("model_revision",),
}
# The profile, or the precision, that is chosen by this machine.
AUTO = "auto"


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
    note: Callable[[str], None] = lambda _text: None,
) -> Recipe:
    """The recipe for these words of the user.

    Args:
        profile: a name in `configs/profiles/`, or `AUTO` for the one that fits this machine.
        config: a JSON or YAML file, which may use other trainers' keys; None takes the one that the
            profile names, if any.
        settings: `key=value` or `key.key=value`, values in YAML's form.
        data: a dataset in place of the configured one.
        note: told what was chosen, translated and not used, a line each.

    Raises:
        UserError: every unknown key, every contradiction and every bad value, each with its origin.
    """
    if profile != AUTO:
        base = _profile_layer(profile)
    later = [] if data is None else [Layer("--data", {"dataset_path": data})]
    later += [_setting(text) for text in settings]
    file = None if config is None else _ConfigFile.read(config)
    if profile == AUTO:
        choice = _profile_for(
            [*([Layer(file.origin, file.translation.values)] if file else []), *later]
        )
        profile, base = choice.profile, _profile_layer(choice.profile)
        note(f"profile {profile}: {choice.why}")
    named = base.values.pop("config", None)
    if file is None and named:
        file = _ConfigFile.read(ROOT / named)
    resolver = _Resolver(base, file, later)
    recipe = resolver.resolve(profile)
    for text in resolver.notes():
        note(text)
    return recipe


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
    except (YAMLError, ValueError) as error:
        raise UserError.one(shown(path), f"is not valid YAML: {error}") from None
    except RecursionError:
        raise UserError.one(shown(path), exact_json.TOO_DEEP.what) from None


def _profile_layer(profile: str) -> Layer:
    path = PROFILES / f"{profile}.yaml"
    if profile not in profiles():
        names = [AUTO, *profiles()]
        raise UserError([unknown_name(profile, names, kind="profile", where="--profile")])
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
    except (YAMLError, ValueError, RecursionError):
        # A Windows path or a text with a colon is meant as it stands.
        parsed = value
    *outer, last = key.strip().split(".")
    values: dict[str, Any] = {last: parsed}
    for name in reversed(outer):
        values = {name: values}
    return Layer(f"--set {key.strip()}", values)


@dataclass(frozen=True)
class _ConfigFile:
    """A configuration file in our keys."""

    origin: str
    translation: Translation

    @classmethod
    def read(cls, path: Path) -> _ConfigFile:
        origin = shown(path.resolve())
        return cls(origin, translated(_read_file(path), origin))


class _Resolver:
    """Lays the sources over each other, and collects what is wrong with them."""

    def __init__(self, base: Layer, file: _ConfigFile | None, later: Sequence[Layer]) -> None:
        self._base, self._file, self._later = base, file, later
        self._origins: dict[str, str] = {}

    def resolve(self, profile: str) -> Recipe:
        """The recipe.

        Raises:
            UserError: all problems of all sources.
        """
        file = [Layer(self._file.origin, self._file.translation.values)] if self._file else []
        layers = [self._base, *file, *self._later]
        merged: dict[str, Any] = {"profile": profile}
        problems = self._problems_of_file()
        for layer in layers:
            problems += [
                _unknown_key(layer.origin, key)
                for key in layer.values
                if key not in Recipe.model_fields
            ]
            known = {
                key: value for key, value in layer.values.items() if key in Recipe.model_fields
            }
            _reset_companions(merged, known)
            for key, value in known.items():
                merged[key] = _laid_over(merged.get(key), value)
                self._origins[key] = layer.origin
        if merged.get("precision") == AUTO:
            merged["precision"] = _precision_here(merged)
        problems += self._against_profile(merged)
        problems += _unknown_names(merged, self._origins)
        try:
            recipe = Recipe(**merged)
        except ValidationError as error:
            origins = self._origins
            found = as_problems(
                error, lambda key: origins.get(key, layers[-1].origin), Recipe.model_fields
            )
            raise UserError(problems + self._news(found, problems)) from None
        if problems:
            raise UserError(problems)
        return recipe

    def notes(self) -> Iterator[str]:
        """What there is to say of the configuration file, after `resolve`."""
        if self._file is None:
            return
        origin = self._file.origin
        standing = {key for key, last in self._origins.items() if last == origin}
        yield from self._file.translation.notes(origin, standing)

    def _problems_of_file(self) -> list[Problem]:
        if self._file is None:
            return []
        translation = self._file.translation
        anew = {key for layer in self._later for key in layer.values}
        return [
            *(_unknown_key(self._file.origin, key) for key in translation.unknown),
            *(problem for key, problem in translation.problems if key not in anew),
        ]

    def _against_profile(self, merged: Mapping[str, Any]) -> list[Problem]:
        """What the file says and the profile was not made for."""
        if self._file is None:
            return []
        origin, translation = self._file.origin, self._file.translation
        problems = []
        device, of_profile = str(merged.get("device")), self._base.values.get("device")
        if self._origins.get("device") == origin and device in _DEVICES and device != of_profile:
            problems.append(
                Problem(
                    where=f"{origin}: device: {device}",
                    what=f"profile {merged['profile']} is for device {of_profile}",
                    remedy=f"Use {_DEVICES[device]}, or remove device.",
                )
            )
        precision = str(merged.get("precision"))
        if precision in translation.excluded and self._origins["precision"] == self._base.origin:
            problems.append(
                Problem(
                    where=f"{origin}: {translation.excluded[precision]}",
                    what=f"profile {merged['profile']} computes in {precision}",
                    remedy="Use precision: fp32, or leave it to the profile and remove this key.",
                )
            )
        return problems

    def _news(self, found: Sequence[Problem], said: Sequence[Problem]) -> list[Problem]:
        """Those that are not said already from another side."""
        hinted = {problem.remedy for problem in said}
        meant = self._file.translation.meant if self._file else set()
        news = []
        for problem in found:
            key = problem.where.rpartition(": ")[2]
            stands_elsewhere = problem.what == "is missing" and key in meant
            if not stands_elsewhere and f"Did you mean {key}?" not in hinted:
                news.append(problem)
        return news


_DEVICES = {
    "cpu": "--profile cpu",
    "cuda": " or ".join(f"--profile {name}" for name in GENERATIONS),
}


def _profile_for(layers: Sequence[Layer]) -> gpus.ProfileChoice:
    """The profile for this machine, unless one of these sources names the device."""
    for layer in reversed(layers):
        device = layer.values.get("device")
        if device == "cpu":
            return gpus.ProfileChoice("cpu", f"{layer.origin} says device: cpu")
        if device is not None:
            break
    return gpus.choose_profile()


def _precision_here(merged: Mapping[str, Any]) -> str:
    """The fastest precision that this machine computes in without losing much.

    What a recipe then holds is the choice, so that its key says what was computed.
    """
    if merged.get("device") == "cpu":
        return "bf16" if processor.computes_in_bf16() else "fp32"
    generation = GENERATIONS.get(str(merged.get("lock")))
    return AUTO if generation is None else generation.precision


def _reset_companions(merged: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, companions in _COMPANIONS.items():
        if key in layer and key in merged:
            for companion in companions:
                merged[companion] = {} if companion == "columns" else None


def _laid_over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **above}
    return above


def _unknown_key(origin: str, name: str) -> Problem:
    key = name.rpartition(".")[2]
    where = f"{origin}: {name}"
    known = foreign_key(key)
    if known is None:
        names = [*Recipe.model_fields, *FOREIGN_KEYS]
        remedy = did_you_mean(key, names, "configs/README.md lists the keys.")
        return Problem(where=where, what="unknown key", remedy=remedy)
    # Other trainers' keys are read in files alone.
    if known.ours:
        return Problem(where=where, what="unknown key", remedy=f"Did you mean {known.ours}?")
    if known.unused:
        return Problem(where=where, what=f"is not used here ({known.unused})", remedy="Remove it.")
    return Problem(where=where, what="unknown key", remedy=known.remedy)


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
