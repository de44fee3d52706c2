"""The images that a run's stages ran in, by digest where the engine has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from contract.events import Event
from contract.manifest import ImageRecord, Manifest
from launcher.display import Display
from launcher.pipeline.stages import needs_tools, training_stages
from launcher.reproduce.record import Condition
from launcher.runtime.engine import Ending, Engine, Job

_SHOWN_DIGEST = len("sha256:") + 12


@dataclass(frozen=True)
class RecordedImages:
    """An engine whose jobs run in the images that a run recorded, where it has them.

    The others are built from the locks, as for any run. `images` are those that may be taken by
    digest: the exporter's under True, the trainer's under False.
    """

    engine: Engine
    images: Mapping[bool, ImageRecord]

    @classmethod
    def of(cls, manifest: Manifest, engine: Engine, *, use: bool) -> RecordedImages:
        """For the stages of a run; without `use`, all images are built from this project's code."""
        return cls(engine, _recorded(manifest) if use else {})

    @property
    def name(self) -> str:
        """See `Engine`."""
        return self.engine.name

    def image(self, lock: str, display: Display, *, exporter: bool = False) -> ImageRecord | None:
        """See `Engine.image`."""
        recorded = self.images.get(exporter)
        if recorded is not None and self.engine.has_image(recorded.digest):
            return recorded
        return self.engine.image(lock, display, exporter=exporter)

    def conditions(self, manifest: Manifest, display: Display) -> list[Condition]:
        """Each image of the run as it was and as it is here, built first where it must be.

        Raises:
            UserError: it cannot be built.
        """
        found = []
        for exporter, image in sorted(_recorded(manifest).items()):
            here = self.image(manifest.recipe.lock, display, exporter=exporter)
            if here is not None:
                # Which builder had it is of no account where the bytes are the same.
                there = here if here.digest == image.digest else image
                name = "exporter image" if exporter else "image"
                found.append(Condition(name=name, there=_shown(there), here=_shown(here)))
        return found

    def has_image(self, digest: str) -> bool:
        """See `Engine.has_image`."""
        return self.engine.has_image(digest)

    def is_ready(self, lock: str, *, exporter: bool = False) -> bool:
        """See `Engine.is_ready`."""
        return self.engine.is_ready(lock, exporter=exporter)

    def run(self, job: Job, on_event: Callable[[Event], None], display: Display) -> Ending:
        """See `Engine.run`."""
        return self.engine.run(job, on_event, display)


def _recorded(manifest: Manifest) -> dict[bool, ImageRecord]:
    tools = needs_tools(manifest.recipe)
    in_exporter = {
        stage.name: tools and stage.reads_exporter for stage in training_stages(manifest.recipe)
    }
    return {
        in_exporter[record.stage]: record.image
        for record in manifest.stages
        if record.image is not None and record.stage in in_exporter
    }


def _shown(image: ImageRecord) -> str:
    return f"{image.digest[:_SHOWN_DIGEST]}, built by {image.builder}"
