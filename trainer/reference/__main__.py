"""Stage `reference`. Run as `python -m trainer.reference --run DIR`."""

from trainer.entrypoint import run_stage
from trainer.reference.stage import reference

run_stage(reference)
