"""Stage `preflight`. Run as `python -m trainer.preflight --run DIR --base DIR --llama-cpp DIR`."""

from trainer.entrypoint import run_stage
from trainer.preflight.stage import preflight

run_stage(preflight)
