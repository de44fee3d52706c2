"""The version: one place says it, and the changelog has what it brought."""

import re
import tomllib

from launcher.project import ROOT, VERSION


def test_the_version_is_pyprojects_and_stands_in_no_module():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert declared == VERSION
    modules = [ROOT / "tasks.py"]
    for wing in ("contract", "launcher", "trainer"):
        modules += (ROOT / wing).rglob("*.py")
    assert [path for path in modules if f'"{VERSION}"' in path.read_text()] == []


def test_the_changelogs_newest_release_is_this_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert sections[0] == "Unreleased"
    version, _, date = sections[1].partition(" - ")
    assert version == VERSION
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", date)
