"""Every `./invoke` command in a document is one that invoke reads: its name, its flags."""

import re
import shlex

import pytest
from invoke import Collection, ParseError
from invoke.parser import Parser

import tasks
from launcher.project import ROOT

DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    # What was a command once may be named there.
    if path.name != "CHANGELOG.md" and "./invoke " in path.read_text(encoding="utf-8")
]
# What a sentence may leave out: the model, and the value behind a flag that it is about.
_UNDERSTOOD = r"did not receive required positional|needed value and was not given one"
_BLOCK = r"^ *```sh\n(.*?)^ *```"


def commands_in_blocks(text: str) -> list[list[str]]:
    """The words behind each `./invoke` in a document's blocks of shell code."""
    blocks = re.findall(_BLOCK, text, re.MULTILINE | re.DOTALL)
    return _commands(line for block in blocks for line in re.sub(r"\\\n", " ", block).splitlines())


def commands_in_sentences(text: str) -> list[list[str]]:
    """Those between backticks, which may leave out what is understood."""
    sentences = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return _commands(re.findall(r"`([^`]*\./invoke [^`]+)`", sentences))


def _commands(lines) -> list[list[str]]:
    return [
        shlex.split(command)
        for line in lines
        for command in re.findall(r"\./invoke +([^|&;#)]+)", line)
        if command.strip() != "--list"
    ]


def check_command(words: list[str]) -> None:
    """See that invoke reads these words.

    Raises:
        ParseError: it has no such task or flag, or a value is missing.
    """
    # invoke's own flag, which each task has.
    words = words[:1] if words[1:] == ["--help"] else words
    Parser(contexts=Collection.from_module(tasks).to_contexts()).parse_argv(words)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_in_a_document_is_one_that_invoke_reads(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    in_blocks, in_sentences = commands_in_blocks(text), commands_in_sentences(text)
    assert in_blocks or in_sentences
    for words in in_blocks:
        check_command(words)
    for words in in_sentences:
        try:
            check_command(words)
        except ParseError as error:
            assert re.search(_UNDERSTOOD, str(error)), words  # noqa: PT017


def test_the_readme_and_the_guides_in_both_languages_are_among_the_documents():
    assert {"README.md", "CONTRIBUTING.md", "docs/data.md", "docs/fr/data.md"} <= set(DOCUMENTS)


@pytest.mark.parametrize(
    "words", ["tran", "tran --help", "train --profil smoke", "train --profile", "package"]
)
def test_a_command_that_does_not_exist_is_found(words):
    (found,) = commands_in_blocks(f"```sh\ncd a && ./invoke {words}   # so\n```")
    with pytest.raises(ParseError):
        check_command(found)


def test_a_command_in_a_sentence_is_found_where_it_is_broken_over_two_lines():
    assert commands_in_sentences("Run `./invoke test\n--fast`; see `a`.") == [["test", "--fast"]]
