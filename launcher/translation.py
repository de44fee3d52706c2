"""Read a configuration file that may use other trainers' keys, and say what was made of each.

What one key means is in the table of `launcher.other_trainers`. Here is what a file says as a
whole: two keys that say the same of one thing, or not the same; keys that mean something only
together; Axolotl's list of datasets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from contract.errors import Problem
from contract.recipe import Recipe
from launcher.other_trainers import (
    DATASET_SUFFIXES,
    FOREIGN_KEYS,
    SECTIONS,
    UNSAID,
    ForeignKey,
    UnknownValueError,
    foreign_key,
)

_LONGEST_VALUE = 60


@dataclass(frozen=True)
class Claim:
    """What one key of a file says of one of our keys; `value` is ours, `given` is the file's."""

    name: str
    given: Any
    value: Any
    fallback: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {short(self.given)}"


@dataclass
class Translation:
    """A configuration file in our keys.

    Attributes:
        values: our keys and their values.
        said: for those that stand there otherwise, what was made of which key.
        unused: why keys are not used -> these keys.
        differences: what is done otherwise here, though it is no reason to refuse the file.
        problems: what keeps it from being read, each with our key that it is about, or with none:
            a later source may say that key anew.
        unknown: keys that no table has.
        meant: our keys that stand there in some form, even where their value cannot be read.
        excluded: precisions that it says it is not in, and by which words.
    """

    values: dict[str, Any] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    unused: dict[str, list[str]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    problems: list[tuple[str, Problem]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    meant: set[str] = field(default_factory=set)
    excluded: dict[str, str] = field(default_factory=dict)

    def notes(self, origin: str, standing: set[str]) -> Iterator[str]:
        """Lines for people: what was translated, what is otherwise, what is not used.

        Args:
            origin: the file.
            standing: our keys that no later source has given anew.
        """
        said = [text for key, text in self.said.items() if key in standing]
        if said:
            yield f"{origin}: {', '.join(said)}"
        for text in self.differences:
            yield f"{origin}: {text}"
        if self.unused:
            groups = (f"{', '.join(names)} ({why})" for why, names in self.unused.items())
            yield f"{origin}: not used here: {'; '.join(groups)}"


def translated(content: Mapping[str, Any], origin: str) -> Translation:
    """The file's content in our keys, with everything that is to be said about it."""
    reader = _Reader(origin)
    reader.read(content)
    return reader.finish()


def short(value: Any) -> str:
    """A value as it is shown in a line."""
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
    text = text or (value if isinstance(value, str) and value else repr(value))
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


class _Reader:
    """Goes through a file key by key, and then looks at what they say together."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._result = Translation()
        self._claims: dict[str, list[Claim]] = {}
        # Everything that was given, by its own name; of two in different sections the last one.
        self._given: dict[str, Any] = {}
        # What the entry of a dataset is about, while it is read.
        self._about = ""
        self._templates: list[tuple[str, Any]] = []
        self._foreign = False

    def read(self, content: Mapping[str, Any], section: str = "") -> None:
        for key, value in content.items():
            name = f"{section}{key}"
            if str(key).startswith("#"):
                continue
            if key in SECTIONS and (value is None or isinstance(value, dict)):
                self._foreign = True
                self.read(value or {}, f"{name}.")
                continue
            self._given[key] = value
            if key in _TOGETHER:
                self._foreign = True
                if value is not None:
                    _TOGETHER[key](self, name, value)
            else:
                self._read_one(name, key, value)

    def _read_one(self, name: str, key: str, value: Any) -> None:
        known = foreign_key(key)
        own = key in Recipe.model_fields
        if known is None or (own and known.ours != key):
            if own:
                self._claim(key, Claim(name, value, value))
            else:
                self._result.unknown.append(name)
            return
        self._foreign = self._foreign or not own
        if value is None:
            # Not set, in every one of these trainers; our own keys have null as a value.
            if own:
                self._claim(key, Claim(name, value, value))
            return
        if known.ours:
            self._translate(name, known, value)
        elif known.unused:
            self._leave(name, known.unused)
        elif not known.means_ours(value):
            self._refuse(f"{name}: {short(value)}", known.changes, known.remedy)

    def _translate(self, name: str, known: ForeignKey, value: Any) -> None:
        self._result.meant.add(known.ours)
        try:
            ours = known.convert(value)
        except UnknownValueError as error:
            self._refuse(f"{name}: {short(value)}", error.what, error.remedy, about=known.ours)
            return
        if known.ours not in Recipe.model_fields:
            self._refuse(f"{name}: {short(value)}", "has no equal here", "Remove it.")
        elif ours is not UNSAID:
            self._claim(known.ours, Claim(name, value, ours, known.fallback))

    def _claim(self, ours: str, claim: Claim) -> None:
        self._result.meant.add(ours)
        self._claims.setdefault(ours, []).append(claim)

    def _leave(self, name: str, why: str) -> None:
        self._result.unused.setdefault(why, []).append(name)

    def _refuse(self, where: str, what: str, remedy: str, *, about: str = "") -> None:
        problem = Problem(where=f"{self._origin}: {where}", what=what, remedy=remedy)
        self._result.problems.append((about or self._about, problem))

    # What means something only together with other keys.

    def read_template(self, name: str, value: Any) -> None:
        """Compared with the base when the whole file is read."""
        if not str(value).startswith("tokenizer_default"):
            self._templates.append((name, value))

    def read_special_tokens(self, name: str, value: Any) -> None:
        """The padding is of no consequence; any other token is."""
        if isinstance(value, dict) and {k for k, v in value.items() if v} <= {"pad_token"}:
            self._leave(name, "padding bears no loss")
        else:
            self._refuse(name, "changes the base's tokens", "Remove it: the base has its own.")

    def read_plugins(self, name: str, value: Any) -> None:
        """Axolotl's: two of them are about speed."""
        plugins = value if isinstance(value, list) else [value]
        if all(re.search(r"Liger|CutCrossEntropy", str(plugin)) for plugin in plugins):
            self._leave(name, FOREIGN_KEYS["use_liger_kernel"].unused)
        else:
            self._refuse(name, "may change what is trained", "Remove it.")

    def read_datasets(self, name: str, value: Any) -> None:
        """Axolotl's list, with one entry."""
        ours = "evaluation_path" if name.rpartition(".")[2] == "test_datasets" else "dataset_path"
        self._result.meant.add(ours)
        self._about = ours
        self._read_entries(name, value, ours)
        self._about = ""

    def _read_entries(self, name: str, value: Any, ours: str) -> None:
        entries = value if isinstance(value, list) else [value]
        if len(entries) != 1:
            self._refuse(name, f"are {len(entries)} datasets", f"Join them in one file: {ours}.")
            return
        entry = entries[0] if isinstance(entries[0], dict) else {"path": entries[0]}
        self._read_file_of(f"{name}.", entry, ours)
        kind = entry.get("type")
        if isinstance(kind, dict):
            self._read_prompt(f"{name}.type.", kind)
        elif kind is not None:
            self._read_type(f"{name}.type", str(kind))
        self._read_columns(f"{name}.", {k: v for k, v in entry.items() if v is not None})

    def _read_file_of(self, section: str, entry: Mapping[str, Any], ours: str) -> None:
        key = "data_files" if entry.get("data_files") else "path"
        file = entry.get(key)
        file = file[0] if isinstance(file, list) and len(file) == 1 else file
        if isinstance(file, str) and file.lower().endswith(DATASET_SUFFIXES):
            self._claim(ours, Claim(f"{section}{key}", file, file))
        else:
            self._refuse(
                f"{section}{key}: {short(file)}",
                "is no file of rows",
                f"Save it as .jsonl, and give that file: {ours}.",
            )

    def _read_type(self, name: str, kind: str) -> None:
        if kind.partition(".")[0] in ("chat_template", "sharegpt"):
            return
        if kind == "alpaca":
            self._result.differences.append(
                f"{name}: alpaca: the rows are written in the base's chat template, not in "
                "Alpaca's prompt"
            )
            return
        self._refuse(
            f"{name}: {kind}",
            "is a form of prompts that is not written here",
            "Use alpaca or chat_template, or map the dataset's columns: configs/README.md.",
        )

    def _read_prompt(self, section: str, kind: Mapping[str, Any]) -> None:
        for key, value in kind.items():
            if key in ("format", "no_input_format", "system_format"):
                if value and re.sub(r"\{\w+\}", "", str(value)).strip():
                    self._refuse(
                        f"{section}{key}: {short(value)}",
                        "is a form of prompts that is not written here",
                        "Remove it: the base's own chat template is trained and served.",
                    )
            elif key == "system_prompt":
                if value:
                    self._claim("system_prompt", Claim(f"{section}{key}", value, value))
            elif key in _COLUMNS:
                self._read_columns(section, {key: value} if value else {})
            else:
                self._result.unknown.append(f"{section}{key}")

    def _read_columns(self, section: str, entry: Mapping[str, Any]) -> None:
        mappings = entry.get("message_property_mappings") or {}
        for key, value in entry.items():
            name = f"{section}{key}"
            if key in ("path", "data_files", "type", "message_property_mappings", "roles"):
                continue
            if key in ("chat_template", "conversation"):
                self.read_template(name, value)
            elif key in _COLUMNS:
                ours = _COLUMNS[key]
                if key == "field_messages" and mappings.get("content") == "value":
                    ours = "conversations"
                if value not in (ours, "conversations" if key == "field_messages" else ours):
                    self._claim("columns", Claim(name, value, {ours: value}))
            elif key == "split" and value == "train":
                continue
            elif key in _ENTRY_ONLY:
                if value:
                    self._refuse(f"{name}: {short(value)}", "takes a part of the dataset", _PART)
            else:
                self._read_one(name, key, value)

    def finish(self) -> Translation:
        """Look at the file as a whole."""
        self._read_switches_off()
        self._check_templates()
        self._check_adapter()
        self._read_evaluations()
        self._check_best_model()
        for ours, claims in self._claims.items():
            if self._foreign and not _nullable(ours):
                # Empty keys of Axolotl's files that have the same name here.
                claims = [claim for claim in claims if claim.value is not None]
            if claims:
                self._decide(ours, claims)
        self._compare_packing()
        return self._result

    def _compare_packing(self) -> None:
        """An update of others has as many packed sequences as the batch says, and here as many
        rows.
        """
        if self._foreign and self._result.values.get("packing") is True:
            self._result.differences.append(
                "packing: the batch counts rows here, packed or not; there, packed sequences of "
                "several rows. A larger gradient_accumulation_steps makes up for it"
            )

    def _decide(self, ours: str, claims: list[Claim]) -> None:
        if ours == "columns":
            self._join_columns(claims)
            return
        if every := [claim for claim in claims if claim.name.endswith("lora_target_linear")]:
            # Axolotl adds up what the two keys name.
            claims = every
        first_hand = [claim for claim in claims if not claim.fallback]
        chosen = first_hand or claims
        if any(not _same(claim.value, chosen[0].value) for claim in chosen[1:]):
            self._contradiction(ours, chosen)
        for claim in claims:
            if claim.fallback and first_hand and not _same(claim.value, chosen[0].value):
                self._leave(claim.name, f"{chosen[0].name} says it")
        # Of a contradiction the first one, so that it is not called missing as well.
        self._result.values[ours] = chosen[0].value
        told = [claim for claim in chosen if claim.name != ours or claim.given != claim.value]
        if told:
            self._result.said[ours] = _arrow(ours, told[0])

    def _contradiction(self, ours: str, claims: list[Claim]) -> None:
        ways = " and ".join(
            f"{short(claim.value)} (by {claim})" if claim.name != ours else str(claim)
            for claim in claims
        )
        self._refuse(
            ours, f"is said twice, and not the same: {ways}", "Keep one of them.", about=ours
        )

    def _join_columns(self, claims: list[Claim]) -> None:
        columns: dict[str, Any] = {}
        for claim in claims:
            if not isinstance(claim.value, dict):
                self._result.values["columns"] = claim.value
                return
            for target, source in claim.value.items():
                if columns.setdefault(target, source) != source:
                    self._refuse(
                        f"columns.{target}",
                        f"is said twice, and not the same: {columns[target]} and {source}",
                        "Keep one of them.",
                        about="columns",
                    )
        self._result.values["columns"] = columns
        if any(claim.name != "columns" for claim in claims):
            self._result.said["columns"] = ", ".join(
                _arrow("columns", claim) for claim in claims if claim.name != "columns"
            )

    def _read_switches_off(self) -> None:
        """`bf16: false` and `fp16: false` together mean fp32; one alone excludes itself."""
        if "precision" in self._claims:
            return
        off = [key for key in ("bf16", "fp16") if self._given.get(key) is False]
        if len(off) == 2:
            self._claim("precision", Claim("bf16: false and fp16", False, "fp32"))
        self._result.excluded = {key: f"{key}: false" for key in off}

    def _check_templates(self) -> None:
        """Accept the name of the base's own template alone, as far as names tell."""
        bases = [claim.value for claim in self._claims.get("model_to_fine_tune", [])]
        base = _letters(bases[0]) if bases else ""
        for name, given in self._templates:
            # LLaMA-Factory's, for bases that may reason and are not to.
            value = str(given).removesuffix("_nothink")
            if value != given and _letters(value) in base:
                self._claim("thinking", Claim(name, given, "off"))
            if value != "jinja" and _letters(value) in base:
                self._leave(name, "the base's own chat template is used")
                continue
            self._refuse(
                f"{name}: {short(given)}",
                "by its name it is not the base's own chat template",
                FOREIGN_KEYS["chat_template_jinja"].remedy,
            )

    def _check_adapter(self) -> None:
        """Axolotl trains all weights where `adapter` is not set."""
        axolotl = _AXOLOTL & self._given.keys()
        if len(axolotl) > 1 and self._given.get("adapter") is None:
            self._refuse(
                "adapter",
                "is not set: Axolotl trains all weights then, and here only adapters are trained",
                "Set it: adapter: lora, or qlora for a base in 4 bits.",
            )

    def _read_evaluations(self) -> None:
        """When the held-out loss is measured, which others say by a strategy or for each epoch."""
        strategy = self._first("eval_strategy", "evaluation_strategy")
        per_epoch = self._first("evals_per_epoch")
        if strategy is not None and strategy.given in ("no", False):
            # Another key for the steps counts for nothing then.
            for claim in self._claims.pop("eval_steps", []):
                if claim.value is not None:
                    self._leave(claim.name, str(strategy))
            self._claim("eval_steps", Claim(strategy.name, strategy.given, None))
        elif strategy is not None and strategy.given == "epoch":
            self._evaluate_each_epoch(strategy, 1)
        elif per_epoch is not None and isinstance(per_epoch.given, int | float):
            self._evaluate_each_epoch(per_epoch, per_epoch.given)

    def _evaluate_each_epoch(self, claim: Claim, times: float) -> None:
        epochs = next((claim.value for claim in self._claims.get("epochs", [])), None)
        if not isinstance(epochs, int | float):
            self._refuse(str(claim), "needs epochs", "Use eval_steps, such as 0.2 of all steps.")
            return
        evaluations = times * epochs
        # The one after the last step is always done.
        share = round(1 / evaluations, 4) if evaluations > 1 else None
        self._claim("eval_steps", Claim(claim.name, claim.given, share))

    def _check_best_model(self) -> None:
        best = self._first("load_best_model_at_end")
        steps = self._claims.get("eval_steps", [])
        never = bool(steps) and steps[0].value is None
        if best is None:
            return
        if best.given is True and never:
            self._refuse(
                str(best),
                f"keeps the best adapter, and nothing evaluates ({steps[0]})",
                "Set eval_steps, or remove it.",
                about="eval_steps",
            )
        elif best.given is False and not never:
            self._result.differences.append(f"{best}: the adapter of least held-out loss is kept")

    def _first(self, *keys: str) -> Claim | None:
        """The first of these keys that the file has."""
        found = (Claim(key, self._given[key], None) for key in keys if key in self._given)
        return next((claim for claim in found if claim.given is not None), None)


def _later(_reader: _Reader, _name: str, _value: Any) -> None:
    """Looked at when the whole file is read."""


# What means something only by its neighbours.
_TOGETHER: Mapping[str, Callable[[_Reader, str, Any], None]] = {
    "template": _Reader.read_template,
    "chat_template": _Reader.read_template,
    "special_tokens": _Reader.read_special_tokens,
    "plugins": _Reader.read_plugins,
    "datasets": _Reader.read_datasets,
    "test_datasets": _Reader.read_datasets,
    "load_best_model_at_end": _later,
    "eval_strategy": _later,
    "evaluation_strategy": _later,
    "evals_per_epoch": _later,
}
_COLUMNS = {
    "field_messages": "messages",
    "field_system": "system",
    "field_instruction": "instruction",
    "field_input": "input",
    "field_output": "output",
    "field_tools": "tools",
    "field": "text",
}
_ENTRY_ONLY = ("split", "shards", "shards_idx", "preprocess_shards", "name", "drop_system_message")
_PART = "Write the rows that you mean into a file of their own."
_AXOLOTL = {"micro_batch_size", "sequence_len", "num_epochs", "val_set_size", "sample_packing"}


def _arrow(ours: str, claim: Claim) -> str:
    if claim.given == claim.value and type(claim.given) is type(claim.value):
        return f"{claim.name} -> {ours}: {short(claim.value)}"
    return f"{claim} -> {ours}: {short(claim.value)}"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return sorted(map(str, one)) == sorted(map(str, other))
    return bool(one == other)


def _nullable(key: str) -> bool:
    return type(None) in get_args(Recipe.model_fields[key].annotation)


def _letters(text: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(text).lower())
