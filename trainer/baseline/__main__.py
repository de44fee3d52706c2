"""Stage `baseline`. Run as `python -m trainer.baseline --run DIR --trained DIR --base DIR`."""

from trainer.baseline.stage import baseline
from trainer.entrypoint import run_stage

run_stage(baseline)
