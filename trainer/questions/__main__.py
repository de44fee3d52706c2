"""Stage `questions`. Run as `python -m trainer.questions --run DIR --data FILE`."""

from trainer.entrypoint import run_stage
from trainer.questions.stage import questions

run_stage(questions)
