"""Stage `prepare`. Run as `python -m trainer.prepare --run DIR --data FILE --base DIR`."""

from trainer.entrypoint import run_stage
from trainer.prepare.stage import prepare

run_stage(prepare)
