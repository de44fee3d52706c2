"""Whatever stands in a configuration, a profile, `--set` or the gate's policy: a recipe or a
sentence.
"""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.recipe import Recipe
from launcher import configuration
from launcher.configuration import profile_values, resolve
from launcher.gate.policy import POLICY_FILE, Policy, read_policy
from launcher.other_trainers import FOREIGN_KEYS
from launcher.project import CONFIGS
from tests.fuzz.documents import FUZZED, as_bytes, as_json, changed, damaged, no_hang, texts, values

pytestmark = pytest.mark.slow

CONFIGURATION = json.loads((CONFIGS / "training_config.json").read_text())
PROFILE = (CONFIGS / "profiles" / "smoke.yaml").read_text()
KEYS = st.sampled_from([*sorted(Recipe.model_fields), *sorted(FOREIGN_KEYS)])


def sentence(error):
    """What a person would read: it can be printed, and it says something."""
    text = error.text()
    assert text.startswith("affineur: ")
    assert len(text) > len("affineur: ")
    assert "Traceback" not in text
    # A terminal that cannot print a surrogate must not end the program.
    text.encode(errors="backslashreplace")


def resolved(*words, **more):
    with no_hang():
        try:
            recipe = resolve("smoke", *words, **more)
        except UserError as error:
            sentence(error)
        else:
            assert isinstance(recipe, Recipe)


@FUZZED
@given(settings=st.lists(st.one_of(texts, st.builds("{}={}".format, KEYS, texts)), max_size=3))
def test_set(settings):
    resolved(settings=settings)


@FUZZED
@given(settings=st.lists(st.builds(lambda k, v: f"{k}={as_json(v)}", KEYS, values), max_size=3))
def test_set_with_values_of_every_kind(settings):
    resolved(settings=settings)


@FUZZED
@given(
    document=st.one_of(
        changed(CONFIGURATION).map(as_json),
        st.dictionaries(KEYS, values, max_size=6).map(as_json),
        values.map(as_json),
    ),
    suffix=st.sampled_from(["json", "yaml"]),
)
def test_a_configuration_with_other_values(tmp_path_factory, document, suffix):
    file = tmp_path_factory.getbasetemp() / f"configuration.{suffix}"
    file.write_bytes(document.encode(errors="surrogatepass"))
    resolved(config=file)


@FUZZED
@given(
    content=damaged(json.dumps(CONFIGURATION, indent=2)), suffix=st.sampled_from(["json", "yaml"])
)
def test_a_damaged_configuration(tmp_path_factory, content, suffix):
    file = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    file.write_bytes(content)
    resolved(config=file)


@FUZZED
@given(content=damaged(PROFILE))
def test_a_damaged_profile(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    (folder / "damaged.yaml").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch, no_hang():
        patch.setattr(configuration, "PROFILES", folder)
        try:
            profile_values("damaged")
            resolve("damaged")
        except UserError as error:
            sentence(error)


@FUZZED
@given(
    content=st.one_of(
        damaged(POLICY_FILE.read_text()),
        changed({"min_task_gain": 0.1, "max_skill_loss": None, "verified": True}).map(as_bytes),
    )
)
def test_a_gate_policy(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "gate.yaml"
    file.write_bytes(content)
    with no_hang():
        try:
            assert isinstance(read_policy(file), Policy)
        except UserError as error:
            sentence(error)


def test_what_is_sound_is_read():
    """The tests above would pass as well if everything were refused."""
    assert resolve("smoke").profile == "smoke"
    assert resolve("smoke", config=CONFIGS / "training_config.json").epochs == 3
    assert isinstance(read_policy(POLICY_FILE), Policy)
    with suppress(UserError):
        resolve("smoke", settings=["nothing"])
        pytest.fail("a word without '=' was taken")
