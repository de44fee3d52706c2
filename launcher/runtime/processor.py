"""What this machine's processor computes in."""

from __future__ import annotations

from pathlib import Path

from contract.errors import UserError

_CPUINFO = Path("/proc/cpuinfo")
# With neither, torch takes longer in bf16 than in fp32.
_BF16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


def computes_in_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the processor has instructions for bf16, as far as Linux says."""
    if not cpuinfo.exists():
        return False
    for line in cpuinfo.read_text().splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return not _BF16_INSTRUCTIONS.isdisjoint(flags.split())
    return False


def check_precision(precision: str, cpuinfo: Path = _CPUINFO) -> None:
    """Check that the processor computes in the recipe's precision.

    Raises:
        UserError: it does not.
    """
    if precision == "bf16" and not computes_in_bf16(cpuinfo):
        raise UserError.one(
            "precision",
            "this processor does not compute in bf16 (it has neither AVX512-BF16 nor AMX)",
            "Use --set precision=fp32.",
        )
