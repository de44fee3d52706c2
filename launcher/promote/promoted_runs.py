"""Which runs the roles of `configs/models.yaml` stand at: what applications use, or would again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher.pipeline.finished_run import canonical_name
from launcher.project import MODELS_FILE
from launcher.promote.log import PromotionLog
from launcher.promote.models_file import role_models
from launcher.serving.ollama_names import canonical


@dataclass(frozen=True)
class PromotedRun:
    """A run that a role stands at, or that a rollback of the role returns to.

    Attributes:
        key: the name of the run's folder; None where no promotion says which of the model's runs
            the role's name is of.
        current: the role stands at it now.
    """

    role: str
    model: str
    key: str | None
    current: bool

    def may_be(self, model: str, key: str) -> bool:
        """Whether it is this run, or may be."""
        return canonical(self.model) == canonical(model) and self.key in (None, key)


def promoted_runs(
    models_file: Path = MODELS_FILE, log: PromotionLog | None = None
) -> list[PromotedRun]:
    """The runs of all roles, and those that their rollbacks return to.

    Raises:
        UserError: the file of the roles or the log of promotions cannot be read.
    """
    log = log or PromotionLog()
    found: list[PromotedRun] = []
    for role, name in role_models(models_file).items():
        found += _runs_of(role, name, log, current=True)
        standing = log.standing(role)
        if standing is not None and standing.after == name:
            found += _runs_of(role, standing.before, log, current=False)
    return found


def _runs_of(role: str, name: str, log: PromotionLog, *, current: bool) -> Iterator[PromotedRun]:
    entry = log.promotion_to(name)
    if entry is not None:
        yield PromotedRun(role, entry.model, entry.run, current)
        return
    # Set by hand, or the log is another clone's. A promoted model's name is its model's, with a
    # digest for a tag or behind its own tag.
    for model in dict.fromkeys((canonical_name(name), *_without_digest(name))):
        yield PromotedRun(role, model, None, current)


def _without_digest(name: str) -> Iterator[str]:
    model, colon, tag = name.rpartition(":")
    if colon:
        yield model
        if "-" in tag:
            yield name.rpartition("-")[0]
