"""A run's summary says what its training took of the memory, and what was changed for it."""

import io

from contract.results.train import MemoryFigures
from launcher.cli import summary
from launcher.display import terminal
from tests.launcher.test_loss_chart import trained


def said(result):
    file = io.StringIO()
    summary._memory(result, terminal(file=file, width=80))
    return file.getvalue()


def test_the_peak_stands_beside_what_was_expected():
    figures = MemoryFigures(
        estimate_bytes=1_083_524_128, probe_bytes=999_493_632, peak_bytes=1_000_083_456
    )
    assert said(trained(memory=figures)) == (
        "  memory         1.0 GB at its peak   estimated 1.1 GB, probed 999.5 MB\n"
    )


def test_what_was_not_measured_is_not_said():
    assert said(trained(memory=MemoryFigures(estimate_bytes=5))) == ""
    assert said(trained()) == ""
    figures = MemoryFigures(peak_bytes=2_000_000_000)
    assert said(trained(memory=figures)).split() == ["memory", "2.0", "GB", "at", "its", "peak"]


def test_what_memory_had_changed_is_said():
    changed = {"packing_length": 1024, "gradient_checkpointing": True}
    assert said(trained(changed=changed)) == (
        "  changed        packing_length 1024, gradient_checkpointing true\n"
    )
