"""One browser for all tests in this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """Chromium, with a profile of its own."""
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()
