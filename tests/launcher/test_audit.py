"""Every input that no digest pins is named, with where it stands and how to pin it."""

import json
import shutil

import pytest

from contract.manifest import ImageRecord
from launcher.attest.audit import inputs_of_recipe, inputs_of_run
from launcher.attest.findings import Findings
from launcher.attest.project_audit import audit_project
from launcher.attest.requirements import requirements
from launcher.configuration import profiles, resolve
from launcher.project import ROOT
from tests.conftest import invoke
from tests.hand_made_run import COMMIT, make_run, sha256

DIGEST = f"sha256:{sha256(b'image')}"
DOCKERFILE = (
    f"ARG BASE=python:3.11@{DIGEST}\nFROM ${{BASE}} AS packages\nFROM packages AS trainer\n"
)
ACTION = "actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd"
HASHED = f"a==1.0 \\\n    --hash=sha256:{sha256(b'a')}\n    # via b\n"


def unpinned(audit):
    return [str(problem) for problem in audit.unpinned]


@pytest.fixture
def project(tmp_path):
    """A project of a few files, all of whose inputs are pinned."""
    files = {
        "docker/locks/rtx.lock": HASHED,
        "docker/trainer.Dockerfile": DOCKERFILE,
        "docker/docker-bake.hcl": 'contexts = { trainer = "target:trainer" }\n',
        "docker/exporter.Dockerfile": "FROM trainer AS exporter\n",
        ".github/workflows/ci.yml": f"steps:\n  - uses: {ACTION} # v6.0.2\n",
        ".devcontainer/devcontainer.json": '// Ours.\n{\n  "image": "affineur/trainer:dev"\n}\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def change(name, before, after):
        text = (tmp_path / name).read_text()
        assert before in text
        (tmp_path / name).write_text(text.replace(before, after))
        return looked_at()

    def looked_at():
        findings = Findings()
        audit_project(findings, tmp_path)
        return findings.audit()

    assert unpinned(looked_at()) == []
    assert len(looked_at().pinned) == 4
    return change


@pytest.mark.parametrize("engine", ["docker", "local"])
@pytest.mark.parametrize("profile", profiles())
def test_the_shipped_configuration_has_no_input_that_is_not_pinned(profile, engine, monkeypatch):
    for name in ("AFFINEUR_BASE_IMAGE", "AFFINEUR_OLLAMA_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    audit = inputs_of_recipe(resolve(profile), engine=engine, ollama="auto")
    assert unpinned(audit) == []
    told = {pinned.what: pinned.by for pinned in audit.pinned}
    # It looked, and did not only find nothing.
    assert any(what.startswith("base ") for what in told)
    assert told["image python:3.11.14-slim-bookworm"].startswith("sha256:")
    assert len(told["action actions/checkout"]) == 40
    assert {
        f"docker/locks/{name}.lock" for name in ("rtx", "t4", "host", "llama-cpp", "attest")
    } <= (told.keys())
    assert [what for what in told if what.startswith("data/training/")]
    assert bool(audit.remarks) == (engine == "local")


def test_what_no_digest_pins_on_the_local_engine_is_said():
    audit = inputs_of_recipe(resolve("smoke"), engine="local", ollama="auto")
    (remark,) = audit.remarks
    assert "this machine's Python" in remark


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        (None, "own/base is fetched without a commit"),
        ("main", "the revision main of own/base is a branch, a tag or part of a commit"),
        (COMMIT[:12], f"the revision {COMMIT[:12]} of own/base is a branch"),
    ],
)
def test_a_base_of_the_hub_needs_its_whole_commit(revision, said):
    settings = ["model_to_fine_tune=own/base"]
    settings += [f"model_revision={revision}"] if revision else []
    audit = inputs_of_recipe(resolve("smoke", settings=settings), engine="docker", ollama="auto")
    (line,) = unpinned(audit)
    assert line.startswith("model_revision: ")
    assert said in line
    assert "--set model_revision=" in line
    settings = ["model_to_fine_tune=own/base", f"model_revision={COMMIT}"]
    audit = inputs_of_recipe(resolve("smoke", settings=settings), engine="docker", ollama="auto")
    assert unpinned(audit) == []


def test_the_image_of_ollamas_container_is_an_input_where_it_is_asked_for(monkeypatch):
    monkeypatch.delenv("AFFINEUR_OLLAMA_IMAGE", raising=False)
    recipe = resolve("smoke")
    (line,) = unpinned(inputs_of_recipe(recipe, engine="docker", ollama="container"))
    assert line.startswith("--ollama container: the image ollama/ollama:")
    assert line.endswith("Name it by digest: AFFINEUR_OLLAMA_IMAGE=ollama/ollama@sha256:...")
    monkeypatch.setenv("AFFINEUR_OLLAMA_IMAGE", f"ollama/ollama@{DIGEST}")
    assert unpinned(inputs_of_recipe(recipe, engine="docker", ollama="container")) == []


def test_a_base_image_of_ones_own_needs_a_digest(monkeypatch):
    monkeypatch.setenv("AFFINEUR_BASE_IMAGE", "mirror.example:5000/python:3.11")
    (line,) = unpinned(inputs_of_recipe(resolve("smoke"), engine="docker", ollama="auto"))
    assert line.startswith("AFFINEUR_BASE_IMAGE: the image mirror.example:5000/python:3.11")
    assert unpinned(inputs_of_recipe(resolve("smoke"), engine="local", ollama="auto")) == []
    monkeypatch.setenv("AFFINEUR_BASE_IMAGE", f"mirror.example:5000/python@{DIGEST}")
    assert unpinned(inputs_of_recipe(resolve("smoke"), engine="docker", ollama="auto")) == []


LOOSE = [
    ("docker/locks/rtx.lock", HASHED, "a==1.0\n", "docker/locks/rtx.lock: a==1.0 has no hash"),
    (
        "docker/locks/rtx.lock",
        HASHED,
        f"a==1.0 --hash=sha256:{'0' * 63}\n",
        "docker/locks/rtx.lock: a==1.0 has no hash",
    ),
    (
        "docker/locks/rtx.lock",
        HASHED,
        f"{HASHED}b @ git+https://example.org/b.git\n",
        "b @ git+https://example.org/b.git has no hash",
    ),
    ("docker/locks/rtx.lock", HASHED, f"--pre\n{HASHED}", "--pre is an option of the installer"),
    ("docker/trainer.Dockerfile", f"@{DIGEST}", "", "the image python:3.11 is named by a tag"),
    (
        "docker/trainer.Dockerfile",
        "FROM packages AS trainer\n",
        "FROM packages AS trainer\nCOPY --from=busybox:1 /bin/sh /bin/sh\n",
        "docker/trainer.Dockerfile: the image busybox:1 is named by a tag",
    ),
    (
        "docker/trainer.Dockerfile",
        "FROM packages AS trainer\n",
        "FROM packages AS trainer\nRUN --mount=type=bind,from=other/tools,target=/t \\\n  true\n",
        "the image other/tools is named by a tag",
    ),
    (
        "docker/trainer.Dockerfile",
        "ARG BASE",
        "# syntax=docker/dockerfile:1\nARG BASE",
        "the image docker/dockerfile:1 is named by a tag",
    ),
    (
        "docker/trainer.Dockerfile",
        "FROM packages AS trainer\n",
        "FROM packages AS trainer\nADD https://example.org/a.tar /a\n",
        "ADD https://example.org/a.tar /a fetches what no digest pins",
    ),
    (
        ".github/workflows/ci.yml",
        ACTION,
        "actions/checkout@v6",
        ".github/workflows/ci.yml: the action actions/checkout@v6 is named by a tag or a branch",
    ),
    (
        ".github/workflows/ci.yml",
        f"uses: {ACTION}",
        "uses: docker://alpine:3",
        "the image alpine:3 is named by a tag",
    ),
    (
        ".github/workflows/ci.yml",
        "steps:",
        "container: debian:13\nsteps:",
        "the image debian:13 is named by a tag",
    ),
    (
        ".devcontainer/devcontainer.json",
        "affineur/trainer:dev",
        "example/dev:1",
        ".devcontainer/devcontainer.json: the image example/dev:1 is named by a tag",
    ),
    (
        ".devcontainer/devcontainer.json",
        '"image"',
        '"features": {"ghcr.io/devcontainers/features/git:1": {}},\n  "image"',
        "the feature ghcr.io/devcontainers/features/git:1 is fetched by a tag",
    ),
]


@pytest.mark.parametrize(("name", "before", "after", "said"), LOOSE)
def test_what_the_project_leaves_loose_is_named(project, name, before, after, said):
    (line,) = unpinned(project(name, before, after))
    assert said in line
    assert line.startswith(f"{name}: ")
    # What to do about it.
    assert line.endswith(".") or line.endswith(">")


def test_a_local_action_and_an_action_of_the_projects_own_need_no_commit(project):
    assert unpinned(project(".github/workflows/ci.yml", ACTION, "./.github/actions/mine")) == []


def test_every_requirement_of_the_shipped_locks_is_read():
    for lock in (ROOT / "docker" / "locks").glob("*.lock"):
        text = lock.read_text(encoding="utf-8")
        found = requirements(text)
        assert len(found) == text.count("==") > 0, lock
        assert sum(len(entry.sha256) for entry in found) == text.count("--hash=sha256:")
        assert all(entry.name and entry.version for entry in found)


@pytest.mark.parametrize("image", [True, False])
def test_a_finished_run_is_pinned_by_its_manifest(tmp_path, image):
    audit = inputs_of_run(make_run(tmp_path, image=image))
    assert unpinned(audit) == []
    told = {pinned.what: pinned.by for pinned in audit.pinned}
    assert told["base: config.json"] == f"sha256:{sha256(b'config')}"
    assert told["data: data"] == f"sha256:{sha256(b'rows')}"
    assert told["llama_cpp of convert"] == f"sha256:{sha256(b'llama.cpp')}"
    assert "docker/locks/rtx.lock" in told
    assert ("image of train" in told) == image
    assert bool(audit.remarks) == (not image)


def test_what_a_manifest_does_not_pin_is_named(tmp_path):
    run = make_run(tmp_path, image=True)
    manifest = run.manifest
    first, second, *rest = manifest.stages
    run.write_manifest(
        manifest.model_copy(
            update={
                "base": manifest.base.model_copy(update={"revision": "main"}),
                "data": {"data": ""},
                "locks": {"rtx.lock": "latest"},
                "stages": [
                    first.model_copy(update={"image": None}),
                    second.model_copy(
                        update={"image": ImageRecord(digest="affineur/trainer:rtx", builder="x")}
                    ),
                    *rest,
                ],
            }
        )
    )
    said = unpinned(inputs_of_run(run))
    assert len(said) == 5
    for what in (
        "the base's revision main is no commit",
        "no digest of data: data is recorded ('')",
        "no digest of rtx.lock is recorded ('latest')",
        "no image is recorded for preflight, which ran in a container",
        "no digest of image of prepare is recorded ('affineur/trainer:rtx')",
    ):
        assert [line for line in said if what in line and "manifest.json: " in line], what


def test_a_lock_that_is_another_one_by_now_is_pinned_by_its_digest_alone(tmp_path):
    run = make_run(tmp_path, locks={"rtx.lock": sha256(b"of then")})
    audit = inputs_of_run(run)
    assert unpinned(audit) == []
    assert {"what": "rtx.lock", "by": f"sha256:{sha256(b'of then')}"} in [
        pinned.model_dump() for pinned in audit.pinned
    ]


def test_as_a_person_asks_for_it(plain_project, tmp_path):
    words = ("audit", "--profile", "smoke", "--engine", "local")
    done = invoke(plain_project, *words)
    assert (done.returncode, done.stderr.count("no digest pins")) == (0, 1), done.stderr
    assert done.stdout.startswith("Every input is pinned by digest: ")
    assert done.stdout.count("\n") == 1
    told = json.loads(invoke(plain_project, *words, "--json").stdout)
    assert told["unpinned"] == []
    assert len(told["pinned"]) > 10
    loose = invoke(plain_project, *words, "--set", "model_to_fine_tune=own/base")
    assert loose.returncode == 3
    assert loose.stdout.startswith("model_revision: own/base is fetched without a commit. Pin it: ")
    assert "Traceback" not in loose.stderr
    told = json.loads(
        invoke(plain_project, *words, "--set", "model_to_fine_tune=own/base", "--json").stdout
    )
    assert [problem["where"] for problem in told["unpinned"]] == ["model_revision"]
    run = shutil.copytree(make_run(tmp_path / "run").folder, tmp_path / "another")
    done = invoke(plain_project, "audit", "--run", str(run))
    assert (done.returncode, done.stdout[:32]) == (0, "Every input is pinned by digest:")
    refused = invoke(plain_project, "audit", "--bom", "x.json")
    assert refused.returncode == 2
    assert refused.stderr == "affineur: --bom: is of a finished run. Name it: --run RUN.\n"
