"""The gate says yes to what the policy demands, shown beyond its intervals, and to nothing else."""

import pytest

from contract.errors import UserError
from contract.manifest import Check, Verification
from launcher.evaluate.intervals import Interval
from launcher.evaluate.record import Counts, Evaluation, ModelIdentity, Scores, SetResult
from launcher.gate.card import markdown
from launcher.gate.decision import decide
from launcher.gate.policy import POLICY_FILE, Policy, read_policy
from launcher.pipeline.finished_run import Run

POLICY = Policy(min_task_gain=0.1, max_skill_loss=None, verified=True)
NONE = Counts(empty=0, no_json=0, truncated=0, repetition_loop=0)


def result(name, kind, low, mean, high):
    scores = Scores(score=Interval(0.5, 0.4, 0.6), counts=NONE)
    return SetResult(
        set=name,
        kind=kind,
        metrics=["exact"],
        rows=100,
        model=scores,
        base=scores,
        difference=Interval(mean, low, high),
        verdict="inconclusive",
        regression=False,
    )


@pytest.fixture
def digest(run_copy):
    return Run(run_copy).model_digest


@pytest.fixture
def evaluation(digest):
    def evaluated(*sets, of=digest):
        who = ModelIdentity(name="m", by="Ollama 0.6.5", digest="sha256:0", model_digest=of)
        return Evaluation(
            model=who,
            base=who,
            sets=list(sets),
            dropped=[],
            examples=[],
            max_new_tokens=128,
            max_skill_loss=0.05,
            created="2026-01-01T00:00:00+00:00",
        )

    return evaluated


@pytest.fixture
def verified(run_copy, digest):
    def prove(*, passed=True, of=digest):
        check = Check(name="prompt tokens", passed=passed, found="")
        proof = Verification(
            model="m", model_digest=of, server="0.6.5", passed=passed, checks=[check]
        )
        Run(run_copy).record_verification(proof)

    return prove


GOOD = result("task", "task", 0.11, 0.2, 0.3)
KEPT = result("kept", "skill", -0.2, -0.1, -0.04)


def failed(decision):
    assert decision.ship == all(line.passed for line in decision.lines)
    return [line.name for line in decision.lines if not line.passed]


def test_all_demands_met_is_a_yes(run_copy, evaluation, verified):
    verified()
    decision = decide(Run(run_copy), evaluation(GOOD, KEPT), POLICY)
    assert failed(decision) == []
    assert "m: ship" in markdown(evaluation(GOOD, KEPT), decision)


def test_a_gain_that_may_be_chance_is_none(run_copy, evaluation, verified):
    verified()
    barely = result("task", "task", 0.09, 0.2, 0.3)
    assert failed(decide(Run(run_copy), evaluation(barely, KEPT), POLICY)) == ["task"]


def test_a_skill_lost_beyond_its_interval_is_a_no(run_copy, evaluation, verified):
    verified()
    lost = result("lost", "skill", -0.3, -0.2, -0.06)
    decision = decide(Run(run_copy), evaluation(GOOD, KEPT, lost), POLICY)
    assert failed(decision) == ["skills"]
    assert "lost -20.0" in decision.lines[1].found
    assert "kept" not in decision.lines[1].found
    mild = Policy(min_task_gain=0.1, max_skill_loss=0.1, verified=True)
    assert failed(decide(Run(run_copy), evaluation(GOOD, KEPT, lost), mild)) == []


def test_nothing_measured_is_no_yes(run_copy, evaluation, verified):
    verified()
    alone = GOOD.model_copy(update={"difference": None, "base": None, "verdict": None})
    assert failed(decide(Run(run_copy), evaluation(alone), POLICY)) == ["task", "skills"]


def test_an_unproved_model_is_a_no(run_copy, evaluation, verified):
    assert failed(decide(Run(run_copy), evaluation(GOOD, KEPT), POLICY)) == ["verified"]
    verified(passed=False)
    assert failed(decide(Run(run_copy), evaluation(GOOD, KEPT), POLICY)) == ["verified"]
    verified(of="another's")
    assert failed(decide(Run(run_copy), evaluation(GOOD, KEPT), POLICY)) == ["verified"]
    lax = Policy(min_task_gain=0.1, max_skill_loss=None, verified=False)
    assert failed(decide(Run(run_copy), evaluation(GOOD, KEPT), lax)) == []


def test_an_evaluation_of_an_earlier_model_is_a_sentence(run_copy, evaluation):
    with pytest.raises(UserError, match=r"out of date.*./invoke evaluate --model m"):
        decide(Run(run_copy), evaluation(GOOD, of="older"), POLICY)


def test_no_evaluation_is_a_sentence(run_copy):
    with pytest.raises(UserError, match=r"has not been evaluated yet.*./invoke evaluate --model m"):
        Evaluation.of_run(run_copy, "m")


def test_the_shipped_policy_is_read():
    assert read_policy(POLICY_FILE).verified


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min_task_gian: 0.1\n", "min_task_gian: unknown key. Did you mean min_task_gain?"),
        ("min_task_gian: 0.1\n", "verified: is missing"),
        ("min_task_gain: much\nmax_skill_loss: 0\nverified: true\n", "got 'much'"),
        ("min_task_gain: -1\nmax_skill_loss: 0\nverified: true\n", "greater than or equal to 0"),
        ("min_task_gain: 0\nmax_skill_loss: 0\nverified: maybe\n", "got 'maybe'"),
        ("- a\n", "is not a mapping of keys to values"),
        ("a: [\n", "is not valid YAML"),
    ],
)
def test_a_policy_that_is_wrong_is_a_sentence(tmp_path, text, said):
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        read_policy(path)
    assert said in str(refused.value)
    with pytest.raises(UserError, match="there is no file"):
        read_policy(tmp_path / "none.yaml")
