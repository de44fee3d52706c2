"""A stage's outputs are a transaction, and nothing that a container writes is followed.

The engine here is a stand-in that writes at once; what it plants and what happens to it is real.
"""

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from contract.digest import digest_of_value
from contract.errors import UserError
from contract.events import Result, Started
from contract.manifest import ImageRecord
from contract.paths import WORK
from contract.recipe import QuantizeSection
from launcher.configuration import resolve
from launcher.display import Display
from launcher.pipeline import runner as runner_module
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.inputs import file_input
from launcher.pipeline.runner import StageContext, StageFolder, StageRunner
from launcher.pipeline.sources import Sources
from launcher.pipeline.stage_ends import StageCrashed
from launcher.pipeline.stages import ALL_STAGES, BASELINE, Input, Stage, key_parts
from launcher.project import lock_file
from launcher.runtime.engine import Ending
from launcher.runtime.local_engine import LocalEngine

WRITES = Stage(name="merge", inputs=("data",), outputs=("adapter", "gguf/*-f16.gguf"))
CONTINUES = replace(WRITES, continues=True)
READS = Stage(name="rendering", upstream=("merge",), outputs=("rendering.json",))
RESULTS = {"merge": {"dtype": "float16", "merged": 2}, "rendering": {"prompts": 1}}


@dataclass
class Engine:
    """Runs `does` with each folder that the stage may write to, in place of the stage's code."""

    does: Callable[[Path], object]
    name: str = "instant"
    code: int = 0
    image_of: object = None
    before: Callable[[], object] = lambda: None
    jobs: list = field(default_factory=list)

    def run(self, job, on_event, display):
        del display
        self.jobs.append(job)
        self.before()
        on_event(Started(python="3.12.1"))
        for mount in job.mounts:
            if mount.writable:
                self.does(mount.source)
        if self.code:
            return Ending(self.code)
        on_event(Result(values=RESULTS[job.name]))
        return Ending(0)

    def image(self, lock, display, *, exporter=False):
        del lock, display, exporter
        return self.image_of


def adapter(out):
    (out / "adapter").mkdir(exist_ok=True)
    (out / "adapter" / "weights").write_text("new")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return StageFolder(tmp_path / "run", FileDigests(tmp_path / "digests.json"))


def run(folder, does, stage=WRITES, *, key="k", inputs=None, **engine):
    made = Engine(does, **engine)
    context = StageContext(lock="rtx", inputs=inputs or {})
    StageRunner(folder, context, engine=made, display=Display(quiet=True)).run(stage, key)
    return made


def test_all_that_a_stage_may_write_to_is_its_own_folder_which_is_gone_at_its_end(folder):
    [job] = run(folder, adapter).jobs
    assert [(m.name, m.source) for m in job.mounts if m.writable] == [
        ("out", folder.path / WORK / "merge")
    ]
    assert sorted(path.name for path in folder.path.iterdir()) == ["adapter", "stages"]
    assert set(folder.record("merge").outputs) == {"adapter/weights"}


def test_a_planted_log_leads_nowhere(folder, tmp_path):
    own = tmp_path / ".bashrc"
    own.write_text("alias ll='ls -l'\n")

    def plant(out):
        adapter(out)
        for name in ("logs", "stages"):
            (out / name).mkdir(exist_ok=True)
            (out / name / "rendering.log").symlink_to(own)
            (out / name / "rendering.json").symlink_to(own)

    run(folder, plant)
    # The next stage is a real one, which fails at once and says so in its log.
    context = StageContext(lock="rtx")
    after = StageRunner(folder, context, engine=LocalEngine(), display=Display(quiet=True))
    with pytest.raises(StageCrashed):
        after.run(READS, "k")
    assert own.read_text() == "alias ll='ls -l'\n"
    log = folder.path / "logs" / "rendering.log"
    assert not log.is_symlink()
    assert "chat_format.json" in log.read_text()


def linked(out, target):
    (out / "adapter").symlink_to(target)


def linked_inside(out, target):
    (out / "adapter" / "below").mkdir(parents=True)
    (out / "adapter" / "below" / "weights").symlink_to(target / "secret")


def linked_on_the_way(out, target):
    (target / "model-f16.gguf").write_text("of the host")
    (out / "gguf").symlink_to(target)


def linked_hard(out, target):
    (out / "adapter").mkdir()
    (out / "adapter" / "weights").hardlink_to(target / "secret")


def named_pipe(out, _):
    (out / "adapter").mkdir()
    os.mkfifo(out / "adapter" / "weights")


def listening(out, _):
    (out / "adapter").mkdir()
    # A socket's whole path may have 107 letters.
    here = os.open(out / "adapter", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/s")
    os.close(here)


def named_for_a_terminal(out, _):
    (out / "adapter").mkdir()
    (out / "adapter" / "\x1b[2J").write_text("")


def named_in_no_encoding(out, _):
    (out / "adapter").mkdir()
    (out / "adapter" / os.fsdecode(b"\xff")).write_text("")


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (linked, r"merge/adapter: is a symbolic link"),
        (linked_inside, r"adapter/below/weights: is a symbolic link"),
        (linked_on_the_way, r"merge/gguf: is a symbolic link"),
        (linked_hard, r"adapter/weights: has another name as well \(a hard link\)"),
        (named_pipe, r"adapter/weights: is not a file or a folder"),
        (listening, r"adapter/s: is not a file or a folder"),
        (named_for_a_terminal, r"has a name that cannot be printed"),
        (named_in_no_encoding, r"has a name that cannot be printed"),
    ],
)
@pytest.mark.parametrize("stage", [WRITES, CONTINUES])
def test_an_output_that_is_no_plain_file_is_refused_by_its_name(
    folder, tmp_path, does, said, stage
):
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text("of the host")
    run(folder, adapter)
    with pytest.raises(UserError, match=said):
        run(folder, lambda out: does(out, host), stage)
    assert folder.record("merge") is None
    # What was there before is there still, and nothing of what was refused.
    assert (folder.path / "adapter" / "weights").read_text() == "new"
    assert not (folder.path / WORK).exists()
    assert (host / "secret").read_text() == "of the host"


def test_what_is_not_declared_is_removed_and_not_followed(folder, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("")

    def more(out):
        adapter(out)
        (out / "scratch").mkdir()
        (out / "scratch" / "link").symlink_to(tmp_path / "kept")
        (out / "manifest.json").write_text("{}")
        (out / "scratch").chmod(0o500)

    run(folder, more)
    assert sorted(path.name for path in folder.path.iterdir()) == ["adapter", "stages"]
    assert (tmp_path / "kept" / "file").exists()


def test_outputs_are_data_whatever_their_modes(folder):
    def marked(out):
        adapter(out)
        (out / "adapter" / "weights").chmod(0o4755)
        (out / "gguf").mkdir()
        (out / "gguf" / "model-f16.gguf").write_text("")
        (out / "gguf" / "model-f16.gguf").chmod(0)
        (out / "adapter").chmod(0o6500)

    run(folder, marked)
    modes = {
        name: (folder.path / name).stat().st_mode & 0o7777
        for name in ("adapter", "adapter/weights", "gguf/model-f16.gguf")
    }
    assert modes == {"adapter": 0o700, "adapter/weights": 0o644, "gguf/model-f16.gguf": 0o600}


def test_old_outputs_stay_until_new_ones_are_there_and_go_then(folder):
    def both(out):
        adapter(out)
        (out / "gguf").mkdir()
        (out / "gguf" / "model-f16.gguf").write_text("old")

    run(folder, both)
    for code in (1, -signal.SIGKILL):
        with pytest.raises((StageCrashed, UserError)):
            run(folder, lambda out: (out / "adapter").mkdir(), code=code)
        assert folder.record("merge") is None
        assert (folder.path / "adapter" / "weights").read_text() == "new"
        assert (folder.path / "gguf" / "model-f16.gguf").read_text() == "old"
    run(folder, adapter)
    assert not (folder.path / "gguf" / "model-f16.gguf").exists()


def test_a_stage_that_continues_finds_what_it_left_and_only_it(folder):
    def begin(out):
        (out / "checkpoints").mkdir()
        (out / "checkpoints" / "step-1").write_text("half")

    found = []

    def look(out):
        found.append(sorted(path.name for path in out.rglob("*")))
        adapter(out)

    def interrupted(stage, key):
        with pytest.raises(UserError):
            run(folder, begin, stage, key=key, code=-signal.SIGTERM)

    interrupted(CONTINUES, "k")
    run(folder, look, CONTINUES)
    # When it is done, what it would have continued is gone.
    run(folder, look, CONTINUES)
    interrupted(CONTINUES, "k")
    run(folder, look, CONTINUES, key="another")
    interrupted(WRITES, "k")
    run(folder, look)
    assert found == [["checkpoints", "step-1"], [], [], []]
    assert not (folder.path / "checkpoints").exists()


def test_a_launcher_that_is_stopped_before_the_record_loses_no_checkpoint(folder, monkeypatch):
    def train(out):
        found.append((out / "checkpoint").exists())
        (out / "checkpoint").write_text("step 900")
        adapter(out)

    def stopped(_):
        raise KeyboardInterrupt

    found = []
    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_record", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(folder, train, CONTINUES)
    assert folder.record("merge") is None
    run(folder, train, CONTINUES)
    assert found == [False, True]
    assert sorted(path.name for path in folder.path.iterdir()) == ["adapter", "stages"]


def test_what_a_killed_launcher_left_of_a_finished_stage_is_removed(folder):
    run(folder, adapter, CONTINUES)
    left = folder.path / WORK / "merge" / "checkpoints"
    left.mkdir(parents=True)
    context = StageContext(lock="rtx")
    again = StageRunner(folder, context, engine=Engine(adapter), display=Display(quiet=True))
    assert not again.bring_up_to_date(CONTINUES, "k")
    assert not (folder.path / WORK).exists()


def put_back(path):
    """Edit a file and put it back, with its date, as `cp -p` does."""
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(b"poison")
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "edit", [put_back, Path.unlink, lambda path: path.write_text("another row")]
)
@pytest.mark.parametrize("stage", [WRITES, CONTINUES])
def test_an_input_that_is_edited_while_a_stage_reads_it_is_named(folder, tmp_path, edit, stage):
    data = tmp_path / "rows.jsonl"
    data.write_text("a row")
    inputs = {"data": file_input(data, FileDigests(tmp_path / "digests.json"))}

    def edited(out):
        adapter(out)
        edit(data)

    with pytest.raises(UserError, match=r"rows\.jsonl: was changed while merge was .* recorded"):
        run(folder, edited, stage, inputs=inputs)
    assert folder.record("merge") is None
    assert not (folder.path / "adapter").exists()
    # Not even by a stage that continues: its checkpoints came of that file.
    assert not (folder.path / WORK).exists()


def test_an_input_that_was_edited_after_its_digest_is_named_as_well(folder, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("a row")
    inputs = {"data": file_input(data, FileDigests(tmp_path / "digests.json"))}
    put_back(data)
    with pytest.raises(UserError, match=r"rows\.jsonl: was changed"):
        run(folder, adapter, inputs=inputs)


def test_what_a_stage_before_wrote_is_not_edited_either(folder):
    run(folder, adapter)

    def edited(out):
        (out / "rendering.json").write_text("{}")
        put_back(folder.path / "adapter" / "weights")

    with pytest.raises(UserError, match=r"adapter/weights: was changed while rendering was"):
        run(folder, edited, READS)
    assert folder.record("rendering") is None


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A small project in place of this one, and the file of a stage's code in it."""
    stage = tmp_path / "project" / "trainer" / "merge"
    for folder in (stage, stage.parent, stage.parents[1] / "contract"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("")
    (stage / "__main__.py").write_text("from trainer import adapter\n")
    (stage.parent / "adapter.py").write_text("RANK = 8\n")
    (stage.parent / "other.py").write_text("")
    monkeypatch.setattr(runner_module, "Sources", lambda lock: Sources(lock, stage.parents[1]))
    return stage.parent


IMAGE = ImageRecord(digest="sha256:1", builder="by hand")


@pytest.mark.parametrize("image", [None, IMAGE])
def test_code_that_is_edited_before_a_stage_starts_is_named(folder, code, image):
    with pytest.raises(UserError, match=r"trainer/adapter\.py: was changed while merge was"):
        run(folder, adapter, image_of=image, before=lambda: put_back(code / "adapter.py"))
    run(folder, adapter, image_of=image, before=lambda: put_back(code / "other.py"))


def test_a_stage_outside_images_runs_from_a_copy_that_no_edit_reaches(folder, code):
    found = []

    def edit(out):
        adapter(out)
        (code / "adapter.py").write_text("RANK = 9\n")
        [copied] = out.parent.glob("*.code")
        found.append((copied / "trainer" / "adapter.py").read_text())

    [job] = run(folder, edit).jobs
    assert job.code_folder == folder.path / WORK / "merge.code"
    assert found == ["RANK = 8\n"]
    assert run(folder, adapter, image_of=IMAGE).jobs[0].code_folder is None


def test_a_lock_that_is_edited_before_a_stage_starts_is_named(folder, tmp_path, monkeypatch):
    lock = tmp_path / "rtx.lock"
    lock.write_bytes(lock_file("rtx").read_bytes())
    monkeypatch.setattr("launcher.pipeline.sources.lock_file", lambda _: lock)
    with pytest.raises(UserError, match=r"rtx\.lock: was changed"):
        run(folder, adapter, before=lambda: put_back(lock))


def test_no_two_stages_of_one_folder_write_the_same(tmp_path):
    for name in ("model-f16.gguf", "model-q4_k_m.gguf", "imatrix.gguf", "adapter-f32.gguf"):
        (tmp_path / "gguf").mkdir(exist_ok=True)
        (tmp_path / "gguf" / name).write_text("")
    owners = {}
    for stage in ALL_STAGES:
        for pattern in stage.outputs:
            if stage != BASELINE:
                for path in tmp_path.glob(pattern):
                    owners.setdefault(path.name, []).append(stage.name)
    assert owners == {
        "model-f16.gguf": ["convert"],
        "adapter-f32.gguf": ["convert"],
        "model-q4_k_m.gguf": ["quantize"],
        "imatrix.gguf": ["quantize"],
    }


def test_the_bases_key_of_the_comparison_has_the_importance_matrix():
    def key(imatrix):
        recipe = resolve("smoke").model_copy(update={"imatrix": imatrix})
        return digest_of_value(
            key_parts(
                BASELINE,
                recipe=recipe,
                lock_digest="l",
                inputs={"base": Input("b")},
                upstream_keys={},
            )
        )

    assert BASELINE.section is QuantizeSection
    assert key(True) != key(False)
