"""The tables of configs/README.md that `./invoke fix` writes from those in the code."""

from __future__ import annotations

from collections.abc import Iterable

from contract.atomic_write import atomic_write
from contract.metrics import METRICS
from contract.recipe import Recipe
from contract.row_forms import FORMS
from launcher.other_trainers import FOREIGN_KEYS
from launcher.project import CONFIGS
from launcher.runtime.gpu_generations import GENERATIONS

README = CONFIGS / "README.md"


def write_tables() -> None:
    """Write every table anew, where it stands."""
    atomic_write(README, with_tables(README.read_text(encoding="utf-8")))


def with_tables(text: str) -> str:
    """The text with every table as the code has it, each between its two comments.

    Raises:
        ValueError: a comment is missing.
    """
    for name, table in (
        ("row forms", _row_forms()),
        ("other trainers' keys", _foreign_keys()),
        ("metrics", _metrics()),
        ("GPU generations", _gpu_generations()),
    ):
        start, end = f"<!-- {name}, by ./invoke fix -->\n", f"<!-- end of {name} -->"
        before = text[: text.index(start) + len(start)]
        text = before + table + text[text.index(end) :]
    return text


def _row_forms() -> str:
    return _table(
        ("required columns", "optional columns"),
        ((_quoted(form.required), _quoted(form.optional)) for form in FORMS),
    )


def _metrics() -> str:
    return _table(
        ("metric", "an answer is correct if"),
        ((_quoted([metric.name]), metric.right_where) for metric in METRICS.values()),
    )


def _foreign_keys() -> str:
    names: dict[str, list[str]] = {}
    for key in FOREIGN_KEYS.values():
        if key.ours and key.ours != key.name and key.ours in Recipe.model_fields:
            names.setdefault(key.ours, []).append(key.name)
    return _table(
        ("our key", "other names of it"),
        ((_quoted([ours]), _quoted(others)) for ours, others in sorted(names.items())),
    )


def _gpu_generations() -> str:
    return _table(
        ("profile and lock", "GPUs from", "compute precision", "CUDA", "driver from"),
        (
            (
                _quoted([generation.name]),
                f"{generation.architecture} (compute capability "
                f"{'.'.join(map(str, generation.cards_from))})",
                generation.precision,
                generation.cuda,
                str(generation.min_driver),
            )
            for generation in GENERATIONS.values()
        ),
    )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
