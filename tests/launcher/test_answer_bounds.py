"""An answer's bound is generous to whoever answers as expected, and ends what runs in circles."""

import pytest

from contract.evaluation import Item
from contract.metrics import METRICS
from contract.paths import CHAT_FORMAT, REFERENCE
from launcher.evaluate.answer_bounds import max_new_tokens
from launcher.evaluate.evaluated_models import run_reasons, served_reasons


def item(metric, expected, example=None):
    return Item(
        set="s",
        kind="skill",
        where="s:1",
        messages=[{"role": "user", "content": "q"}],
        expected=expected,
        metric=metric,
        example=example,
    )


@pytest.mark.parametrize("text", ["590", "Où est-elle ? " * 40, "数" * 100, "🦊" * 50])
def test_an_expected_answer_fits_with_a_token_for_each_of_its_bytes(text):
    bound = max_new_tokens(item("exact", text), 10_000)
    assert bound >= 96 + len(text.encode())


def test_it_grows_with_what_is_expected_and_ends_at_the_runs_own():
    bounds = [max_new_tokens(item("chrf", "mot " * n), 512) for n in (1, 20, 60, 1_000)]
    assert bounds == sorted(bounds)
    assert bounds[0] < 128
    assert bounds[-1] == 512
    assert max_new_tokens(item("chrf", "mot"), 16) == 16


def test_the_example_counts_where_it_is_longer():
    worked = "36 × 1,20 = 43,20. La boulangère encaisse donc 43,20 €."
    assert max_new_tokens(item("number", "43.2", worked), 512) == 96 + 4 * 20
    assert max_new_tokens(item("exact", worked, "43"), 512) == 96 + 4 * 20


def test_what_is_looked_for_in_an_answer_says_nothing_of_its_length():
    for metric in ("contains", "answered", "refused", "regex", "number", "json_valid"):
        assert max_new_tokens(item(metric, "1"), 512) == 512
        assert max_new_tokens(item(metric, "1", "It is 1."), 512) < 128
    assert {name for name, metric in METRICS.items() if metric.expects_answer} == {
        "json_f1",
        "normalized",
        "chrf",
        "exact",
    }


def test_who_reasons_first_has_the_runs_own():
    assert max_new_tokens(item("exact", "590"), 512, reasons=True) == 512


class Server:
    """Says of every model the same."""

    def __init__(self, **shown):
        self.shown = shown

    def show(self, name):
        return self.shown


def test_a_served_model_reasons_by_what_the_server_says_of_it():
    assert served_reasons(Server(capabilities=["completion", "thinking"], template=""), "m")
    assert served_reasons(Server(template="{{ .Prompt }}<think>"), "m")
    assert not served_reasons(Server(capabilities=None, template="{{ .Prompt }}"), "m")


class FinishedRun:
    """A run's folder."""

    def __init__(self, folder):
        self.folder = folder


FORMAT = (
    '{"template": "", "end": "", "ends": [], "end_ids": [], "thinking": %s, '
    '"needs_template_engine": null}'
)
REFERENCES = (
    '{"answer_tokens": 9, "questions": [{"messages": [], "prompt": "", "prompt_tokens": 0, '
    '"answer": "%s", "decided": null, "held_out": true}], "agreements": {}, "merge": '
    '{"mean_kl": 0, "same_top": 1, "tokens": 1}, "rendering": null}'
)


@pytest.mark.parametrize(
    ("thinking", "answer", "reasons"),
    [("true", "4", True), ("false", "4", False), ("null", "<think>\\n2+2</think>4", True)],
)
def test_a_runs_model_reasons_by_its_template_or_by_its_answers(
    tmp_path, thinking, answer, reasons
):
    (tmp_path / CHAT_FORMAT).parent.mkdir(parents=True)
    (tmp_path / CHAT_FORMAT).write_text(FORMAT % thinking)
    (tmp_path / REFERENCE).write_text(REFERENCES % answer)
    assert run_reasons(FinishedRun(tmp_path)) is reasons
    assert not run_reasons(FinishedRun(tmp_path / "of old"))
