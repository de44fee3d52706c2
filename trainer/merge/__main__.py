"""Stage `merge`. Run as `python -m trainer.merge --run DIR --base DIR`."""

from trainer.entrypoint import run_stage
from trainer.merge.stage import merge

run_stage(merge)
