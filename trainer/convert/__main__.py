"""Stage `convert`. Run as `python -m trainer.convert --run DIR --llama-cpp DIR`."""

from trainer.convert.stage import convert
from trainer.entrypoint import run_stage

run_stage(convert)
