"""What a stage said while it ran, as far as its end is judged by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import JsonValue

from contract import events
from contract.errors import UserError


@dataclass
class HeardEvents:
    """Listens to one start of a stage.

    Attributes:
        on_started: is called when it runs.
        on_metrics: is told what a training measured.
        on_other: is told of what is only shown.
        python: the version that it runs on.
        result: what it found out.
        failed: what a person can fix.
        fallback: what it would go on with, were it killed for lack of memory now.
    """

    on_started: Callable[[], None]
    on_metrics: Callable[[events.Metrics], None]
    on_other: Callable[[events.Event], None]
    python: str | None = None
    result: dict[str, JsonValue] = field(default_factory=dict)
    failed: UserError | None = None
    fallback: events.MemoryFallback | None = None

    def on_event(self, event: events.Event) -> None:
        """Keep it, or hand it on."""
        if isinstance(event, events.Started):
            self.python = event.python
            self.on_started()
        elif isinstance(event, events.Failed):
            self.failed = UserError(event.problems, event.more)
        elif isinstance(event, events.Result):
            self.result.update(event.values)
        elif isinstance(event, events.Metrics):
            self.on_metrics(event)
        elif isinstance(event, events.MemoryFallback):
            self.fallback = event if event.changed is not None else None
        else:
            self.on_other(event)
