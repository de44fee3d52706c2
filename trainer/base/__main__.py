"""Stage `base`. Run as `python -m trainer.base --run DIR`, DIR being a folder of the cache."""

from trainer.base.stage import base
from trainer.entrypoint import run_stage_with_secrets

run_stage_with_secrets(base)
