"""Stage `train`. Run as `python -m trainer.train --run DIR --base DIR`."""

from trainer.entrypoint import run_stage
from trainer.train.stage import train

run_stage(train)
