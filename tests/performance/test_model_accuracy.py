"""Is the model better at its task than its base, on rows that it was not trained on?

`pytest tests/performance/test_model_accuracy.py --model NAME [--base NAME]`, or `./invoke test
--only tests/performance/test_model_accuracy.py --model NAME`. Without a name: the smoke run's.
"""

from launcher.evaluate.report import percent


def test_the_model_is_better_at_its_task_than_its_base(evaluation):
    task = evaluation.task
    assert task.base is not None, "nothing to compare with: use --base NAME"
    said = (
        f"{task.set}, {task.rows} rows: {percent(task.base.score)} -> {percent(task.model.score)}, "
        f"{percent(task.difference, signed=True)}"
    )
    assert task.verdict == "better", said


def test_no_row_that_was_trained_on_is_counted(evaluation):
    dropped = {leak.where for leak in evaluation.dropped}
    assert dropped.isdisjoint(example.where for example in evaluation.examples)
    assert evaluation.task.rows > 0


def test_its_answers_to_the_task_end_by_themselves(evaluation):
    counts = evaluation.task.model.counts
    assert counts.truncated + counts.repetition_loop == 0, counts
