"""bf16 on a CPU is for processors that compute in it, and `auto` knows them by what Linux says."""

import pytest

from contract.errors import UserError
from launcher import configuration
from launcher.runtime import processor

# Of /proc/cpuinfo: AMD Zen 4, Intel Sapphire Rapids, Intel Alder Lake, Apple under Linux.
ZEN4 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx512f avx512_bf16 avx512vbmi\n"
SAPPHIRE = "processor\t: 0\nflags\t\t: fpu avx512f amx_bf16 amx_tile\n"
ALDER = "processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\nvmx flags\t: vnmi\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"


@pytest.fixture
def machine(tmp_path):
    def with_cpuinfo(text):
        path = tmp_path / "cpuinfo"
        path.write_text(text)
        return path

    return with_cpuinfo


@pytest.mark.parametrize(
    ("text", "computes"), [(ZEN4, True), (SAPPHIRE, True), (ALDER, False), (ARM, False)]
)
def test_a_processor_is_known_by_its_flags(machine, text, computes):
    assert processor.computes_in_bf16(machine(text)) is computes


def test_a_system_that_says_nothing_of_its_processor_has_no_bf16(tmp_path):
    assert processor.computes_in_bf16(tmp_path / "cpuinfo") is False


def test_bf16_on_a_processor_without_it_is_refused_with_what_to_do(machine):
    with pytest.raises(UserError, match=r"does not compute in bf16.*--set precision=fp32"):
        processor.check_precision("bf16", machine(ALDER))
    processor.check_precision("bf16", machine(ZEN4))
    processor.check_precision("fp32", machine(ALDER))


@pytest.mark.parametrize(("here", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_this_processor_computes_in(monkeypatch, here, precision):
    monkeypatch.setattr(processor, "computes_in_bf16", lambda: here)
    assert configuration.resolve("cpu", settings=["precision=auto"]).precision == precision


def test_auto_is_decided_before_it_is_held_against_a_configuration(monkeypatch, tmp_path):
    config = tmp_path / "c.json"
    config.write_text('{"bf16": false}')
    monkeypatch.setattr(processor, "computes_in_bf16", lambda: True)
    with pytest.raises(UserError, match="bf16: false: profile demo computes in bf16"):
        configuration.resolve("demo", config=config)
    monkeypatch.setattr(processor, "computes_in_bf16", lambda: False)
    assert configuration.resolve("demo", config=config).precision == "fp32"


@pytest.mark.parametrize(("profile", "precision"), [("rtx", "bf16"), ("t4", "fp16")])
def test_auto_on_a_card_is_its_generations_own(profile, precision):
    assert configuration.resolve(profile, settings=["precision=auto"]).precision == precision
