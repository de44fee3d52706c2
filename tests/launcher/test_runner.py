"""A stage runs when it must, and only then.

The engine here is a stand-in that writes files at once: what is tested is the launcher's book-
keeping. tests/launcher/test_whole_run.py does the same with the real engine and real stages.
"""

from dataclasses import dataclass, field, replace

import pytest

from contract.digest import digest_of_value
from contract.errors import Problem, UserError
from contract.events import Failed, Result, Started
from contract.manifest import ImageRecord
from contract.recipe import PrepareSection
from contract.results.merge import MergeResult
from launcher.configuration import resolve
from launcher.display import Display
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.runner import StageContext, StageFolder, StageRunner
from launcher.pipeline.stage_ends import StageCrashed, end_of
from launcher.pipeline.stages import Input, Stage, key_parts
from launcher.runtime.engine import Ending

FIRST = Stage(name="prepare", inputs=("data",), outputs=("first",))
SECOND = Stage(name="merge", upstream=("prepare",), outputs=("second.txt",))
FLAGS = ["--run", "/affineur/run", "--out", "/affineur/out"]
LENGTHS = {"min": 1, "median": 1, "p95": 1, "max": 1}
RESULTS = {
    "prepare": {
        **{"rows": 1, "train": 1, "held_out": 0, "max_length": 16, "lengths": [1]},
        **{"tokens": LENGTHS, "answer_tokens": LENGTHS},
        **{
            "cut": [],
            "no_room": [],
            "duplicates": [],
            "conflicts": [],
            "in_both": [],
            "laid_out": [],
        },
    },
    "merge": {"dtype": "float16", "merged": 2},
}


@dataclass
class InstantEngine:
    name: str = "instant"
    gpu: bool | None = None
    code: int = 0
    memory_ran_out: bool = False
    text: str = "1"
    more: dict = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)

    def run(self, job, on_event, display):
        del display
        self.ran.append(job.module)
        self.gpu = job.gpu
        self.images.append(job.image)
        on_event(Started(python="3.12.1"))
        out = next(mount.source for mount in job.mounts if mount.name == "out")
        if self.code == 2:
            on_event(Failed(problems=[Problem(where="x:1", what="is bad")], more=2))
        if self.code:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            job.log.write_text("".join(f"line {n}\n" for n in range(100)))
            return Ending(self.code, self.memory_ran_out)
        if job.module == "trainer.prepare":
            (out / "first").mkdir()
            (out / "first" / "a b é.txt").write_text(self.text)
        else:
            (out / "second.txt").write_text(self.text)
        found = {**RESULTS[job.module.removeprefix("trainer.")], **self.more}
        on_event(Result(values=found))
        return Ending(0)

    def image(self, lock, display, *, exporter=False):
        del lock, display, exporter
        return ImageRecord(digest="sha256:1", builder="by hand")


@pytest.fixture
def engine():
    return InstantEngine()


@pytest.fixture
def run(tmp_path):
    return StageFolder(tmp_path / "run", FileDigests(tmp_path / "digests.json"))


def runner(run, engine, **context):
    settings = StageContext(lock="rtx", **context)
    return StageRunner(run, settings, engine=engine, display=Display(quiet=True))


def bring_up_to_date(run, engine, keys=("k1", "k2")):
    engine.ran.clear()
    for stage, key in zip((FIRST, SECOND), keys, strict=True):
        run.path.mkdir(exist_ok=True)
        runner(run, engine).bring_up_to_date(stage, key)
    return list(engine.ran)


def test_nothing_runs_twice(run, engine):
    assert bring_up_to_date(run, engine) == ["trainer.prepare", "trainer.merge"]
    assert bring_up_to_date(run, engine) == []


def test_a_changed_key_runs_its_stage(run, engine):
    bring_up_to_date(run, engine)
    assert bring_up_to_date(run, engine, ("k1", "other")) == ["trainer.merge"]


def test_a_changed_output_is_made_again(run, engine):
    bring_up_to_date(run, engine)
    (run.path / "second.txt").write_text("edited by hand")
    assert bring_up_to_date(run, engine) == ["trainer.merge"]


def test_a_removed_output_is_made_again_and_what_reads_it_only_if_it_differs(run, engine):
    bring_up_to_date(run, engine)
    (run.path / "first" / "a b é.txt").unlink()
    assert bring_up_to_date(run, engine) == ["trainer.prepare"]
    (run.path / "first" / "a b é.txt").unlink()
    engine.text = "2"
    assert bring_up_to_date(run, engine) == ["trainer.prepare", "trainer.merge"]


def test_a_file_too_many_in_an_output_folder_is_noticed(run, engine):
    bring_up_to_date(run, engine)
    (run.path / "first" / "extra").write_text("")
    assert "trainer.prepare" in bring_up_to_date(run, engine)


def test_a_failed_stage_leaves_no_record_and_no_manifest(run, engine):
    bring_up_to_date(run, engine)
    (run.path / "manifest.json").write_text("{}")
    engine.code = 1
    with pytest.raises(StageCrashed) as crashed:
        bring_up_to_date(run, engine, ("k1", "other"))
    assert "line 99\n\naffineur: merge" in crashed.value.text()
    assert run.record("merge") is None
    assert not (run.path / "manifest.json").exists()
    engine.code = 0
    assert bring_up_to_date(run, engine, ("k1", "other")) == ["trainer.merge"]


def test_what_a_person_can_mend_comes_out_as_problems(run, engine):
    engine.code = 2
    with pytest.raises(UserError, match="x:1: is bad") as caught:
        bring_up_to_date(run, engine)
    # Those that it only counted are counted.
    assert caught.value.text().startswith("affineur: 3 problems\n  x:1: is bad")


@pytest.mark.parametrize(
    ("code", "said"),
    [(-11, "segmentation fault (exit code 139)"), (1, "code 1"), (2, "code 2")],
)
def test_how_a_stage_ended_is_said(run, engine, code, said, monkeypatch):
    engine.code = code
    monkeypatch.setattr("tests.launcher.test_runner.Failed", lambda **_: Result(values={}))
    with pytest.raises(StageCrashed) as crashed:
        bring_up_to_date(run, engine)
    assert said in str(crashed.value)


@pytest.mark.parametrize(
    ("code", "memory_ran_out", "said"),
    [
        (-9, False, r"by signal 9 \(exit code 137\), by hand or by the kernel"),
        (-9, True, "prepare: ran out of memory and was killed because this machine had none left"),
        (-15, False, r"by signal 15 \(exit code 143\). Finished stages are kept"),
    ],
)
def test_an_end_from_outside_is_a_persons_to_mend(run, engine, code, memory_ran_out, said):
    engine.code, engine.memory_ran_out = code, memory_ran_out
    with pytest.raises(UserError, match=said):
        bring_up_to_date(run, engine)


@pytest.mark.parametrize(
    ("stage", "limit_bytes", "said"),
    [
        (
            "train",
            600 << 20,
            "was killed at its limit of 600 MiB. Raise --memory, lower max_length, or take a "
            "smaller base. Finished",
        ),
        (
            "merge",
            12 << 30,
            "was killed at its limit of 12 GiB. Raise --memory or take a smaller base. Finished",
        ),
        ("prepare", 10**9, "was killed at its limit of 954 MiB. Raise --memory. Finished"),
        ("prepare", None, "had none left. Close other programs or add swap. Finished"),
    ],
)
def test_memory_that_ran_out_is_said_with_its_limit_and_what_would_help(
    tmp_path, stage, limit_bytes, said
):
    ending = Ending(-9, memory_ran_out=True, memory_limit_bytes=limit_bytes)
    assert f"{stage}: ran out of memory and " in str(end_of(stage, ending, tmp_path / "log"))
    assert said in str(end_of(stage, ending, tmp_path / "log"))


def test_the_record_holds_inputs_outputs_and_result(run, engine):
    bring_up_to_date(run, engine)
    record = run.record("merge")
    assert set(record.inputs) == {"prepare"}
    assert set(record.outputs) == {"second.txt"}
    assert record.typed_result(MergeResult) == MergeResult(dtype="float16", merged=2)
    assert record.image == ImageRecord(digest="sha256:1", builder="by hand")
    assert record.python == "3.12.1"
    # What stands in the record is what ran: nobody looked for the image a second time.
    assert set(engine.images) == {record.image.digest}
    assert record.command == ["python", "-m", "trainer.merge", *FLAGS]


@pytest.mark.parametrize(("more", "said"), [({"merge": 2}, "extra"), ({"merged": "?"}, "integer")])
def test_a_result_of_other_keys_is_a_bug_and_no_record_is_left(run, engine, more, said):
    bring_up_to_date(run, engine)
    engine.more = more
    with pytest.raises(StageCrashed, match=said):
        bring_up_to_date(run, engine, ("k1", "other"))
    assert run.record("merge") is None


def test_a_card_is_asked_for_by_the_stage_that_may_use_it_alone(run, engine):
    bring_up_to_date(run, engine)
    assert engine.gpu is False
    training = replace(FIRST, uses_gpu=True)
    runner(run, engine, gpu=True).run(training, "k")
    assert engine.gpu is True
    runner(run, engine, gpu=False).run(training, "k")
    assert engine.gpu is False


def test_a_key_changes_with_each_thing_that_decides_the_outputs():
    recipe = resolve("smoke")

    def key(lock="l", data="d", other="x", upstream="u", **changed):
        return digest_of_value(
            key_parts(
                replace(FIRST, section=PrepareSection, upstream=("base",)),
                recipe=recipe.model_copy(update=changed),
                lock_digest=lock,
                inputs={"data": Input(data), "other": Input(other)},
                upstream_keys={"base": upstream, "train": other},
            )
        )

    decisive = {key(), key(max_length=99), key(lock="m"), key(data="e"), key(upstream="v")}
    assert len(decisive) == 5
    assert key() == key(other="not read") == key(epochs=9)
