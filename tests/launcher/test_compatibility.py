"""Which server takes which form, by what facts and release notes say of each version."""

import pytest

from contract.errors import UserError
from contract.serving import Serving
from launcher.serving.compatibility import check_form, check_templates, numbers


def serving(*, template="{{ .Prompt }}", adapter=None):
    return Serving(
        gguf="gguf/a.gguf", adapter=adapter, template=template, system=None, parameters={}
    )


@pytest.mark.parametrize(
    ("version", "form", "said"),
    [
        ("0.34.1", serving(adapter="gguf/b.gguf"), "no longer supports adapters"),
        ("0.40.0", serving(adapter="gguf/b.gguf"), "--set serving=merged"),
        ("0.0.0", serving(), "too old to accept a model's files"),
        ("0.5.4", serving(), "Use Ollama 0.5.5 or newer."),
        ("0.6.5", serving(template=None), "conversations would be lost"),
        ("0.29.9-rc1", serving(template=None), "Use Ollama 0.30 or newer."),
    ],
)
def test_a_server_of_the_wrong_age_is_refused(version, form, said):
    with pytest.raises(UserError, match=said):
        check_form(version, form)


@pytest.mark.parametrize(
    ("version", "form"),
    [
        ("0.5.5", serving()),
        ("0.34.0", serving(adapter="gguf/b.gguf")),
        ("0.34.1", serving()),
        ("0.30.0", serving(template=None)),
        ("main-1a2b3c", serving(template=None)),
    ],
)
def test_a_server_of_the_right_age_is_taken(version, form):
    check_form(version, form)


def test_versions_are_compared_by_their_numbers():
    assert numbers("0.5.11") > numbers("0.5.5")
    assert numbers("0.34.1-rc2") == (0, 34, 1)


def test_what_an_old_server_cannot_write_is_refused_before_training():
    with pytest.raises(UserError, match="only Go templates, and the data have tools") as caught:
        check_templates("0.6.5", "the data have tools")
    assert "--ollama none" in str(caught.value)
    check_templates("0.6.5", None)
    check_templates("0.30.0", "the data have tools")
