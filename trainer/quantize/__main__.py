"""Stage `quantize`. Run as `python -m trainer.quantize --run DIR --tools DIR`."""

from trainer.entrypoint import run_stage
from trainer.quantize.stage import quantize

run_stage(quantize)
