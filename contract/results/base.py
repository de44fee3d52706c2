"""What the stage `base` finds out."""

from __future__ import annotations

from contract.base import BaseIdentity
from contract.results.stage_result import StageResult


class BaseResult(StageResult):
    """Which base lies in the cache now."""

    stage = "base"

    identity: BaseIdentity
