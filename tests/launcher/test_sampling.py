"""A sample is the same rows each time, of every set, whatever else is in the file."""

import pytest

from contract.errors import UserError
from contract.evaluation import Item
from launcher.evaluate.evaluation import EvaluationRequest, Evaluator
from launcher.evaluate.sampling import sample


def items(kind="skill", name="a", rows=range(50), metric="exact"):
    return [
        Item(
            set=name,
            kind=kind,
            where=f"{name}:{place}",
            messages=[{"role": "user", "content": f"q{row}"}],
            expected=str(row),
            metric=metric,
        )
        for place, row in enumerate(rows, 1)
    ]


def asked(found):
    return [item.messages[0]["content"] for item in found]


def test_so_many_of_each_set_in_their_order():
    whole = [*items("task", "t"), *items(), *items(name="b", rows=range(3))]
    found = sample(whole, 10)
    assert [item for item in whole if item in found] == found
    sizes = {name: sum(item.set == name for item in found) for name in "tab"}
    assert sizes == {"t": 10, "a": 10, "b": 3}
    assert sample(whole, 50) == whole


def test_a_skill_of_the_tasks_name_is_another_set():
    assert len(sample([*items("task"), *items("skill")], 5)) == 10


def test_it_is_neither_the_files_beginning_nor_its_order():
    found = asked(sample(items(), 10))
    assert found != [f"q{n}" for n in range(10)]
    assert sorted(asked(sample(items(rows=reversed(range(50))), 10))) == sorted(found)


def test_a_larger_sample_holds_the_smaller_and_more_rows_leave_most_of_it():
    found = asked(sample(items(), 10))
    assert set(found) < set(asked(sample(items(), 20)))
    assert len(set(found) & set(asked(sample(items(rows=range(55)), 10)))) >= 7


def test_rows_that_are_the_same_are_two():
    assert len(sample(items(rows=[1] * 5), 3)) == 3


@pytest.mark.parametrize("given", ["0", "-3", "x", "2.5", "1e9"])
def test_a_limit_that_is_no_number_of_rows_is_a_sentence(given):
    asked = EvaluationRequest(model="m", limit=given)
    evaluator = Evaluator(request=asked, run=None, ollama=None, engine=None, display=None)
    with pytest.raises(UserError, match=f"--limit: {given} is not a number of rows"):
        evaluator.evaluate()
