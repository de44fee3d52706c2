"""Stage `rendering`. Run as `python -m trainer.rendering --run DIR --base DIR --tools DIR`."""

from trainer.entrypoint import run_stage
from trainer.rendering.stage import rendering

run_stage(rendering)
