"""The main job in containers: the same bytes, nothing left behind, nothing lost."""

import json
import signal
import subprocess
import time
from dataclasses import dataclass

import pytest

from contract import paths
from contract.digest import digest_of_file
from contract.manifest import Manifest, StageRecord
from contract.results.train import TrainResult
from launcher.reproduce.record import Reproduction
from tests.conftest import (
    SmokeRun,
    bare_clone,
    fresh_copy,
    invoke,
    lend_tools,
    run_smoke,
    start_training,
)
from tests.container.conftest import ENGINE, ours
from tests.hub import hub

FILES = [
    "adapter/adapter_model.safetensors",
    "gguf/model-f16.gguf",
    "gguf/model-q8_0.gguf",
    "Modelfile",
]


@dataclass(frozen=True)
class Ended:
    """How a run ended that was cut off while it trained, and which containers were left."""

    code: int
    said: str
    left: list[str]


@dataclass(frozen=True)
class CutOff:
    """A run that was cut off in three ways, and what the same command made of it then."""

    stopped: Ended
    container_killed: Ended
    launcher_killed: Ended
    run: SmokeRun
    left: list[str]


@pytest.fixture(scope="module")
def cut_off(engine, smoke_run, tmp_path_factory):
    """A whole smoke run in containers, in a clone of its own that shares nothing.

    `auto` takes the engine that answers. What is cut off does not change what is made, so one
    training serves for all of it.
    """
    del smoke_run  # Not at the same time: two trainings on two cores take long.
    folder = tmp_path_factory.mktemp("contained")
    project = fresh_copy(folder / "clone é")
    # The base as well is made in a container.
    more = {**ENGINE, "XDG_CACHE_HOME": str(folder / "cache")}

    def cut(end):
        process, _ = start_training(project, **more)
        end(process)
        said = process.communicate(timeout=150)[1]
        return Ended(process.returncode, said, [container.name for container in ours(engine)])

    def kill_container(_process):
        (running,) = ours(engine)
        running.kill()

    stopped = cut(lambda process: process.send_signal(signal.SIGTERM))
    container_killed = cut(kill_container)
    launcher_killed = cut(lambda process: process.kill())
    run = run_smoke(project, **more)
    left = [container.name for container in ours(engine)]
    return CutOff(stopped, container_killed, launcher_killed, run, left)


@pytest.fixture(scope="module")
def contained(cut_off):
    return cut_off.run


@pytest.fixture
def project(smoke_run, tmp_path):
    """A clone with the smoke run's environment and cache, and no run."""
    return bare_clone(smoke_run.project, tmp_path / "clone")


def test_containers_give_the_bytes_that_the_local_engine_gives(smoke_run, contained):
    assert contained.folder.name == smoke_run.folder.name
    assert "engine docker, at " in contained.said
    assert "engine local" in smoke_run.said
    for name in FILES:
        assert digest_of_file(contained.folder / name) == digest_of_file(smoke_run.folder / name)


def test_the_manifest_names_the_image_by_digest_and_what_built_it(engine, contained):
    digest = engine.image("rtx", None).digest
    for record in contained.manifest.stages:
        assert record.engine == "docker"
        assert record.image.digest == digest
        assert record.image.builder


def test_a_second_clone_reproduces_a_run_in_the_images_that_it_had(contained, project, tmp_path):
    words = ("--engine", "docker", "--json", str(tmp_path / "found.json"))
    done = invoke(project, "reproduce", str(contained.folder / "manifest.json"), *words, **ENGINE)
    assert done.returncode == 0, done.stdout + done.stderr
    found = Reproduction.read(tmp_path / "found.json")
    assert found.engine == "docker"
    conditions = {condition.name: condition for condition in found.conditions}
    assert conditions.keys() == {"processor", "threads", "engine", "image"}
    assert all(condition.same for condition in conditions.values())
    image = contained.manifest.stages[0].image.digest
    assert image.startswith(conditions["image"].here.partition(",")[0])
    made = {name for record in contained.manifest.stages for name in record.outputs}
    assert {file.file for file in found.files} == made
    assert {file.file for file in found.files if file.state != "identical"} == {"metrics.jsonl"}
    (folder,) = (project / "data" / "reproduced").iterdir()
    for record in Manifest.read(folder / "manifest.json").stages:
        assert record.image.digest == image


def test_what_ran_in_containers_is_up_to_date_without_them(contained):
    again = invoke(contained.project, "train", "--profile", "smoke", "--engine", "local")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("up to date") == 8


def test_an_evaluation_reads_rows_and_converts_the_base_in_containers(contained, tools):
    lend_tools(contained.project, tools)
    words = ("--model", "affineur-smoke", "--ollama", "none", "--skills", "none")
    done = invoke(contained.project, "evaluate", *words, **ENGINE)
    assert done.returncode == 0, done.stderr
    assert "better" in done.stdout
    records = contained.folder / paths.EVALUATION_FOLDER / paths.STAGES
    for stage in ("questions", "baseline"):
        record = StageRecord.read(records / f"{stage}.json")
        assert record.engine == "docker"


def test_the_t4_image_trains_the_smoke_recipe(project):
    # Shorter: it learns as well. How many answers are exact by then depends on the processor.
    settings = ("lock=t4", "output_model_name=t4", "epochs=2", "held_out_answers=4")
    run = run_smoke(project, *(word for value in settings for word in ("--set", value)), **ENGINE)
    train = next(record for record in run.manifest.stages if record.stage == "train")
    assert train.engine == "docker"
    loss = train.typed_result(TrainResult).held_out.loss
    assert loss is not None
    assert loss.tuned < loss.base / 3
    assert run.manifest.versions["torch"] == "2.10.0"


def test_a_token_reaches_the_hub_and_stands_nowhere_else(engine, smoke_run, project):
    bridge = engine._client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    files = sorted(path.name for path in smoke_run.base.iterdir())
    since = time.time()
    with hub(smoke_run.base, files, bridge["Gateway"]) as (endpoint, asked):
        done = invoke(
            project,
            *("data", "--profile", "smoke", "--data", "data/evaluation/smoke.jsonl", "--quiet"),
            *("--set", "model_to_fine_tune=us/tiny"),
            HF_ENDPOINT=endpoint,
            HF_TOKEN="hf_secret_in_containers",
            **ENGINE,
        )
    assert done.returncode == 0, done.stderr
    assert {token for _, token in asked} == {"Bearer hf_secret_in_containers"}
    said = list(engine._client.events(since=since, until=time.time(), decode=True))
    named = [event["Actor"]["Attributes"].get("dev.affineur.stage") for event in said]
    assert "base" in named
    assert "hf_secret" not in json.dumps(said)
    logs = (smoke_run.project / "data" / "cache" / "logs").iterdir()
    assert all(b"hf_secret_in" not in path.read_bytes() for path in logs)


def test_a_dataset_anywhere_with_any_name_is_read(project, tmp_path):
    data = tmp_path / "à côté" / "mes données, 2.jsonl"
    data.parent.mkdir()
    rows = [{"instruction": f"Compte {n}.", "output": f"{n}"} for n in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = invoke(project, "data", "--profile", "smoke", "--data", str(data), **ENGINE)
    assert done.returncode == 0, done.stderr
    assert "30 rows" in done.stdout


def test_a_dead_launchers_container_is_removed_and_the_run_goes_on(cut_off):
    (left,) = cut_off.launcher_killed.left
    assert f"removed container {left}, left behind by a killed launcher" in cut_off.run.said
    assert cut_off.left == []


def test_a_stopped_launcher_stops_its_container(cut_off):
    ended = cut_off.stopped
    assert ended.code == 130, ended.said
    assert ended.left == []
    assert "Traceback" not in ended.said


def test_a_container_killed_from_outside_is_a_sentence(cut_off):
    ended = cut_off.container_killed
    assert ended.code == 2, ended.said
    assert "train: was terminated by signal 9 (exit code 137)" in ended.said
    assert "run the same command to resume" in ended.said
    assert "Traceback" not in ended.said
    assert ended.left == []


def test_a_run_without_the_memory_that_it_needs_is_a_sentence(project):
    done = invoke(project, "train", "--profile", "smoke", "--memory", "200m", **ENGINE)
    assert done.returncode == 2, done.stderr
    assert "ran out of memory and was killed at its limit of 200 MiB" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_finds_this_engine_fit_for_the_smoke_profile(contained):
    done = invoke(contained.project, "doctor", "--profile", "smoke", **ENGINE)
    assert done.returncode == 0, done.stdout
    lines = {line.split()[2]: line.split()[1] for line in done.stdout.splitlines() if "✓" in line}
    assert {"engine", "buildx", "disk", "image", "user", "GPU"} <= lines.keys()


def test_nothing_of_the_engine_is_written_into_the_project_by_another_user(contained):
    owned = subprocess.run(
        ["find", str(contained.project), "-not", "-user", str(contained.folder.owner())],
        capture_output=True,
        text=True,
        check=True,
    )
    assert owned.stdout == ""
