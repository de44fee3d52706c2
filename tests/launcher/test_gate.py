"""The gate says yes or no to what is shown, and of what is not shown that it cannot tell."""

import json
from types import SimpleNamespace

import pytest

from contract.errors import UserError
from contract.manifest import Check, Verification
from launcher.cli import commands
from launcher.evaluate.intervals import Interval
from launcher.evaluate.paired_differences import mean_difference
from launcher.evaluate.record import (
    ATTEMPT,
    Counts,
    Evaluation,
    EvaluationAttempt,
    GateDecision,
    ModelIdentity,
    Scores,
    SetResult,
)
from launcher.gate.card import markdown
from launcher.gate.decision import decide
from launcher.gate.policy import POLICY_FILE, Policy, read_policy
from launcher.pipeline.finished_run import Run
from launcher.promote.promotion import GateRefused

POLICY = Policy(min_task_gain=0.1, max_skill_loss=None, verified=True)
NONE = Counts(empty=0, no_json=0, truncated=0, repetition_loop=0)


def result(name, kind, *, rows=100, base=50, won=0, lost=0):
    """A set of which the base has so many right; the model wins and loses so many."""
    theirs = [1.0] * base + [0.0] * (rows - base)
    ours = [0.0] * lost + [1.0] * (base - lost + won) + [0.0] * (rows - base - won)
    score = Interval(0.5, 0.4, 0.6)
    return SetResult(
        set=name,
        kind=kind,
        metrics=["exact"],
        rows=rows,
        model=Scores(score=score, counts=NONE, row_scores=ours),
        base=Scores(score=score, counts=NONE, row_scores=theirs),
        difference=mean_difference(ours, theirs),
        verdict="inconclusive",
        regression=False,
        max_new_tokens=(64, 128),
    )


class FinishedRun:
    """As much of a run as the gate looks at, proved to be what is served."""

    model_digest = "sha256:d"

    def __init__(self, folder):
        check = Check(name="prompt tokens", passed=True, found="")
        self.folder = folder
        self.manifest = SimpleNamespace(
            verification=Verification(
                model="m",
                model_digest=self.model_digest,
                server="0.6.5",
                address="http://proof:11434",
                passed=True,
                checks=[check],
            )
        )


@pytest.fixture
def run(tmp_path):
    return FinishedRun(tmp_path)


def identity(of=FinishedRun.model_digest, address="http://asked:11434"):
    return ModelIdentity(
        name="m", by="Ollama 0.34.1", address=address, digest="sha256:0", model_digest=of
    )


def evaluation(*sets, of=FinishedRun.model_digest):
    return Evaluation(
        model=identity(of),
        base=identity(of),
        sets=list(sets),
        dropped=[],
        examples=[],
        limit=None,
        max_new_tokens=128,
        max_skill_loss=0.08,
        created="2026-01-01T00:00:00+00:00",
    )


GOOD = result("task", "task", won=25)
# Of 300 rows as many are won as are lost.
KEPT = result("kept", "skill", rows=300, base=150, won=15, lost=15)


def outcomes(decision):
    assert decision.ship == all(line.passed for line in decision.lines)
    return {line.name: line.outcome for line in decision.lines if not line.passed}


def failed(decision):
    found = outcomes(decision)
    assert set(found.values()) <= {"failed"}
    return list(found)


def test_all_demands_met_is_a_yes(run):
    decision = decide(run, evaluation(GOOD, KEPT), POLICY)
    assert failed(decision) == []
    assert decision.outcome == "passed"
    assert "m: ship" in markdown(evaluation(GOOD, KEPT), decision)


def test_a_gain_that_may_be_chance_is_inconclusive_with_the_rows_that_would_decide(run):
    barely = result("task", "task", won=23, lost=12)
    decision = decide(run, evaluation(barely, KEPT), POLICY)
    assert outcomes(decision) == {"task": "inconclusive"}
    assert decision.outcome == "inconclusive"
    needed = decision.lines[0].rows_needed
    assert 150 < needed < 1_000
    assert f"about {needed} rows would decide" in decision.lines[0].found
    assert "m: do not ship: inconclusive" in markdown(evaluation(barely, KEPT), decision)
    # So many of the same kind do decide.
    won, lost = round(0.23 * needed), round(0.12 * needed)
    many = result("task", "task", rows=needed, base=needed // 2, won=won, lost=lost)
    assert outcomes(decide(run, evaluation(many, KEPT), POLICY)) == {}


def test_a_gain_shown_to_be_too_small_is_a_no(run):
    small = result("task", "task", won=1)
    assert outcomes(decide(run, evaluation(small, KEPT), POLICY)) == {"task": "failed"}
    # No chance, and too small all the same.
    sure = result("task", "task", rows=1_000, base=500, won=50)
    assert sure.difference.low > 0
    assert outcomes(decide(run, evaluation(sure, KEPT), POLICY)) == {"task": "failed"}
    unsure = result("task", "task", won=8)
    assert unsure.difference.low > 0
    assert outcomes(decide(run, evaluation(unsure, KEPT), POLICY)) == {"task": "inconclusive"}
    any_gain = Policy(min_task_gain=0, max_skill_loss=None, verified=True)
    assert outcomes(decide(run, evaluation(unsure, KEPT), any_gain)) == {}


def test_a_gain_that_is_no_chance_and_large_enough_need_not_be_shown_to_be_larger(run):
    enough = result("task", "task", won=15)
    assert enough.difference.low < POLICY.min_task_gain
    assert outcomes(decide(run, evaluation(enough, KEPT), POLICY)) == {}


def test_a_loss_that_was_not_looked_for_closely_enough_is_no_yes(run):
    # Nothing lost on the whole, but of 28 rows: a loss of 20 points would have looked so, too.
    few = result("few", "skill", rows=28, base=14, won=3, lost=3)
    decision = decide(run, evaluation(GOOD, few), POLICY)
    assert outcomes(decision) == {"skills": "inconclusive"}
    assert decision.lines[1].rows_needed > 100
    assert not decision.lost


def test_sets_are_judged_together(run):
    sets = [result(f"s{n}", "skill", rows=60, base=30, won=5, lost=5) for n in range(8)]
    assert outcomes(decide(run, evaluation(GOOD, *sets), POLICY)) == {}
    assert outcomes(decide(run, evaluation(GOOD, sets[0]), POLICY)) == {"skills": "inconclusive"}


def test_a_single_skill_that_is_lost_is_a_no_beside_others_that_are_kept(run):
    lost = result("lost", "skill", rows=40, base=30, lost=14)
    kept = [KEPT.model_copy(update={"set": f"kept {n}"}) for n in range(5)]
    decision = decide(run, evaluation(GOOD, *kept, lost), POLICY)
    assert outcomes(decision) == {"each skill": "failed"}
    assert "lost -35.0" in decision.lines[2].found
    assert "kept" not in decision.lines[2].found
    assert decision.lost == ["lost"]
    mild = Policy(min_task_gain=0.1, max_skill_loss=0.3, verified=True)
    assert outcomes(decide(run, evaluation(GOOD, *kept, lost), mild)) == {}


def test_one_set_of_many_may_look_worse_by_chance(run):
    unlucky = result("unlucky", "skill", rows=60, base=30, lost=12)
    kept = [KEPT.model_copy(update={"set": f"kept {n}"}) for n in range(7)]
    assert outcomes(decide(run, evaluation(GOOD, *kept, unlucky), POLICY)) == {}
    # The same rows, were they the only set.
    alone = decide(run, evaluation(GOOD, unlucky), POLICY)
    assert outcomes(alone) == {"skills": "failed", "each skill": "failed"}


def test_the_cards_verdicts_are_the_gates(run):
    lost = result("lost", "skill", rows=40, base=30, lost=14)
    lost = lost.model_copy(update={"verdict": "worse", "regression": True})
    kept = KEPT.model_copy(update={"rows": 300})
    for bound, said in ((0.08, "worse"), (0.3, "inconclusive")):
        policy = Policy(min_task_gain=0.1, max_skill_loss=bound, verified=True)
        found = evaluation(GOOD, kept, lost)
        card = markdown(found, decide(run, found, policy))
        (row,) = [line for line in card.splitlines() if line.startswith("| lost (exact)")]
        assert row.endswith(f"| {said} |")


def test_the_card_says_what_could_not_be_seen_and_whose_answers_are_none(run):
    counts = Counts(empty=0, no_json=0, truncated=3, repetition_loop=1)
    theirs = Counts(empty=2, no_json=0, truncated=12, repetition_loop=0)
    kept = KEPT.model_copy(
        update={
            "model": KEPT.model.model_copy(update={"counts": counts}),
            "base": KEPT.base.model_copy(update={"counts": theirs}),
        }
    )
    score = Interval(0.04, 0, 0.2)
    low = result("low", "skill", rows=25, base=1)
    low = low.model_copy(update={"base": low.base.model_copy(update={"score": score})})
    found = evaluation(GOOD, kept, low).model_copy(update={"limit": 300})
    card = markdown(found, decide(run, found, POLICY))
    assert (
        "- kept: of 300 answers, 0 empty (base 2), 3 truncated (base 12), "
        "1 in a repetition loop (base 0)"
    ) in card
    assert "- a sample: at most 300 rows of each set (--limit)" in card
    assert "smallest loss that would be seen (in 80 % of cases): 12." in card
    assert "4.2 on all skills together (325 rows)" in card
    assert "- low: the base scores 8 or less, so no greater loss can show" in card


def test_nothing_measured_is_no_yes(run):
    alone = GOOD.model_copy(update={"difference": None, "base": None, "verdict": None})
    assert failed(decide(run, evaluation(alone), POLICY)) == ["task", "skills"]


def test_the_commands_exit_code_is_3_for_a_no_and_for_what_is_inconclusive(
    run, monkeypatch, capsys
):
    monkeypatch.setattr(commands.Run, "find", lambda model, key="": run)
    small = result("task", "task", won=1)
    barely = result("task", "task", won=23, lost=12)
    policy = run.folder / "gate.yaml"
    policy.write_text("min_task_gain: 0.1\nmax_skill_loss: null\nverified: true\n")
    for task, said in ((GOOD, None), (small, "do not ship  m"), (barely, "inconclusive  m")):
        evaluation(task, KEPT).write(run.folder / "evaluation.json")
        code = 0
        try:
            commands.gate("m", run="", policy=str(policy))
        except SystemExit as ended:
            code = ended.code
        assert code == (3 if said else 0)
        assert (said or "ship  m") in capsys.readouterr().out
        assert Evaluation.of_run(run.folder, "m").gate.ship == (said is None)


def test_a_refused_promotion_tells_a_no_from_what_is_inconclusive(run):
    small = result("task", "task", won=1)
    barely = result("task", "task", won=23, lost=12)
    for task, mark, said in (
        (small, "✗", "m fails the gate"),
        (barely, "?", "m is not shown to pass the gate"),
    ):
        found = evaluation(task, KEPT)
        refused = GateRefused(found, decide(run, found, POLICY))
        assert refused.exit_code == 3
        assert f"  {mark} task: " in refused.text()
        assert said in refused.text()


def test_a_decision_of_two_outcomes_is_still_read():
    lines = [{"name": "task", "passed": False, "found": "f"}]
    read = GateDecision.model_validate_json(json.dumps({"ship": False, "lines": lines}))
    assert (read.outcome, read.lines[0].outcome) == ("failed", "failed")
    assert GateDecision.model_validate_json(read.model_dump_json()) == read


def test_an_unproved_model_is_a_no(run_copy):
    digest = Run(run_copy).model_digest
    found = evaluation(GOOD, KEPT, of=digest)

    def verified(*, passed=True, of=digest):
        check = Check(name="prompt tokens", passed=passed, found="")
        proof = Verification(
            model="m", model_digest=of, server="0.6.5", passed=passed, checks=[check]
        )
        Run(run_copy).record_verification(proof)

    assert failed(decide(Run(run_copy), found, POLICY)) == ["verified"]
    verified(passed=False)
    assert failed(decide(Run(run_copy), found, POLICY)) == ["verified"]
    verified(of="another's")
    assert failed(decide(Run(run_copy), found, POLICY)) == ["verified"]
    lax = Policy(min_task_gain=0.1, max_skill_loss=None, verified=False)
    assert failed(decide(Run(run_copy), found, lax)) == []
    verified()
    assert failed(decide(Run(run_copy), found, POLICY)) == []


def test_an_evaluation_of_an_earlier_model_is_a_sentence(run):
    with pytest.raises(UserError, match=r"out of date.*./invoke evaluate --model m"):
        decide(run, evaluation(GOOD, of="older"), POLICY)


@pytest.mark.parametrize("of", ["older", None])
def test_an_evaluation_of_another_model_is_refused_whatever_it_says(run, of):
    with pytest.raises(UserError, match="out of date"):
        decide(run, evaluation(GOOD, KEPT, of=of), POLICY)


def test_the_card_names_the_server_that_answered_and_the_one_of_the_proof(run, monkeypatch, capsys):
    monkeypatch.setattr(commands.Run, "find", lambda model, key="": run)
    evaluation(GOOD, KEPT).write(run.folder / "evaluation.json")
    commands.gate("m", run="", policy="")
    said = " ".join(capsys.readouterr().out.split())
    for card in (said, (run.folder / "card.md").read_text()):
        assert "on Ollama 0.6.5 at http://proof:11434: 1 checks passed" in card
        assert "measured on Ollama 0.34.1 at http://asked:11434 against m, 2026-01-01" in card


def test_a_base_that_another_server_answered_for_is_said(run):
    found = evaluation(GOOD, KEPT).model_copy(update={"base": identity(address=None)})
    assert "http://asked:11434 against m by Ollama 0.34.1, 2026" in markdown(
        found, decide(run, found, POLICY)
    )


def test_scores_of_an_evaluation_before_one_that_failed_are_called_so(run, monkeypatch, capsys):
    monkeypatch.setattr(commands.Run, "find", lambda model, key="": run)
    evaluation(GOOD, KEPT).write(run.folder / "evaluation.json")
    later = identity(address="http://later:11434")
    EvaluationAttempt(model=later, started="2026-01-02T00:00:00+00:00").write(run.folder / ATTEMPT)
    commands.gate("m", run="", policy="")
    assert (
        "the evaluation by Ollama 0.34.1 at http://later:11434 that began at "
        "2026-01-02T00:00:00+00:00 did not end: the scores are those of an earlier one"
    ) in " ".join(capsys.readouterr().err.split())


def test_no_evaluation_is_a_sentence(run):
    with pytest.raises(UserError, match=r"has not been evaluated yet.*./invoke evaluate --model m"):
        Evaluation.of_run(run.folder, "m")


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
