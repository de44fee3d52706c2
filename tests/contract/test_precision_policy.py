"""What every card computes in, with every profile and precision; nothing in bf16 below 8.0."""

import itertools

import pytest

from contract.errors import UserError
from contract.precision_policy import Card, decisions, precision_policy
from contract.recipe import TrainSection
from launcher.configuration import profiles, resolve

# Pascal, Turing, Ampere (A100, RTX 30), Ada, Hopper, Blackwell (B200, RTX 50).
CAPABILITIES = [(6, 1), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0), None]
PRECISIONS = ["fp32", "bf16", "fp16"]


def section(profile, **changed):
    found = resolve(profile).section(TrainSection)
    return found.model_copy(update=changed)


def card(capability):
    return None if capability is None else Card(capability, "A card")


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("profile", profiles())
def test_the_table(profile, precision, capability):
    recipe = section(profile, precision=precision)
    old = capability is not None and capability < (8, 0)
    if recipe.device == "cuda" and precision == "bf16" and old:
        with pytest.raises(
            UserError, match=r"A card .* does not compute in bf16, which needs 8\.0"
        ):
            precision_policy(recipe, card(capability))
        return
    policy = precision_policy(recipe, card(capability))
    assert policy.computing == precision
    # Whatever rounds, what is trained does not.
    assert policy.adapter == "fp32"
    assert policy.scaled == (precision == "fp16")
    assert policy.autocast == (precision != "fp32")
    assert policy.weights == ("fp32" if recipe.device == "cpu" else precision)
    assert policy.nf4 == (recipe.quantize_base == "nf4")
    for line in decisions(recipe, policy, card(capability)):
        assert all(line), line
        assert not (old and recipe.device == "cuda" and line.how == "bf16")


@pytest.mark.parametrize(
    ("profile", "capability", "expected"),
    [
        ("rtx", (8, 6), ("bf16", "NF4, the rest bf16", "fp32")),
        ("rtx", (12, 0), ("bf16", "NF4, the rest bf16", "fp32")),
        ("t4", (7, 5), ("fp16", "NF4, the rest fp16", "fp32, gradients scaled")),
        ("smoke", None, ("fp32", "NF4, the rest fp32", "fp32")),
    ],
)
def test_what_people_are_told(profile, capability, expected):
    recipe = section(profile)
    told = decisions(recipe, precision_policy(recipe, card(capability)), card(capability))
    lines = {line.what: line for line in told}
    assert tuple(lines[what].how for what in ("compute", "weights", "adapter")) == expected
    if profile == "t4":
        assert lines["compute"].why == "A card (compute capability 7.5) has no bf16"


def test_nf4_is_refused_where_it_has_no_kernels():
    with pytest.raises(UserError, match="no kernels for NF4"):
        precision_policy(section("t4"), card((5, 2)))
    precision_policy(section("t4", quantize_base="none"), card((5, 2)))


def test_the_attention_that_the_class_takes_is_what_is_used_and_said():
    recipe = section("rtx")
    policy = precision_policy(recipe, card((8, 6)), "eager")
    assert policy.attention == "eager"
    (line,) = (one for one in decisions(recipe, policy, None) if one.what == "attention")
    assert line.why == "the base's class takes nothing else"


def test_every_line_stands_once():
    for profile, capability in itertools.product(("rtx", "smoke"), [(8, 6), None]):
        recipe = section(profile)
        policy = precision_policy(recipe, card(capability))
        names = [line.what for line in decisions(recipe, policy, card(capability))]
        assert len(names) == len(set(names))
