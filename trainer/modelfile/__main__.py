"""Stage `modelfile`. Run as `python -m trainer.modelfile --run DIR`."""

from trainer.entrypoint import run_stage
from trainer.modelfile.stage import modelfile

run_stage(modelfile)
