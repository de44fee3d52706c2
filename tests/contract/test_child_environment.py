"""Each child process is given an environment that is named, and no token of another's."""

import ast

import pytest

from contract.child_environment import Purpose, child_environment
from launcher.project import ROOT
from launcher.runtime.logged_process import run_logged

SECRETS = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "LD_PRELOAD", "PYTHONPATH")
# Runs the project's own checks and tests, which are to see what their caller sees.
GIVES_ALL = "launcher/cli/checks.py"
# Its environment is fixed and in its digest: what it compiles is the same for everybody.
GIVES_NONE = "launcher/runtime/llama_cpp_tools.py"


@pytest.mark.parametrize("purpose", Purpose)
def test_nobody_is_given_what_is_not_named(monkeypatch, purpose):
    for name in SECRETS:
        monkeypatch.setenv(name, "secret")
    found = child_environment(purpose, LOCK="rtx")
    assert "secret" not in found.values()
    assert found["LOCK"] == "rtx"
    assert "PATH" in found


@pytest.mark.parametrize(
    ("name", "given_to"),
    [
        ("UV_INDEX_URL", {Purpose.PACKAGES}),
        ("PIP_INDEX_URL", {Purpose.PACKAGES}),
        ("DOCKER_HOST", {Purpose.DOCKER}),
        (
            "https_proxy",
            {Purpose.PACKAGES, Purpose.DOCKER, Purpose.NETWORK_STAGE, Purpose.TRACKING},
        ),
        ("MLFLOW_TRACKING_TOKEN", {Purpose.TRACKING}),
        ("WANDB_API_KEY", {Purpose.TRACKING}),
        ("CUDA_VISIBLE_DEVICES", {Purpose.STAGE, Purpose.NETWORK_STAGE, Purpose.GPU_QUERY}),
        ("GOMP_SPINCOUNT", {Purpose.LLAMA_CPP}),
        ("LANG", set(Purpose)),
        ("TMPDIR", set(Purpose)),
    ],
)
def test_each_is_given_what_it_needs(monkeypatch, name, given_to):
    monkeypatch.setenv(name, "x")
    assert {purpose for purpose in Purpose if name in child_environment(purpose)} == given_to


def test_a_logged_command_sees_its_environment_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    log = tmp_path / "log"
    assert run_logged(["env"], log, environment=child_environment(Purpose.PACKAGES)) == 0
    assert "PATH=" in log.read_text()
    assert "hf_secret" not in log.read_text()


def test_every_process_that_we_start_is_given_an_environment_of_its_own():
    starts = {"run", "Popen", "check_output", "check_call", "call", "run_logged"}
    seen = 0
    for wing in ("launcher", "trainer", "contract"):
        for file in sorted((ROOT / wing).rglob("*.py")):
            for call in ast.walk(ast.parse(file.read_text())):
                if not isinstance(call, ast.Call) or not starts_a_process(call.func, starts):
                    continue
                seen += 1
                where = f"{file.relative_to(ROOT)}:{call.lineno}"
                given = {word.arg: ast.unparse(word.value) for word in call.keywords}
                environment = given.get("env", given.get("environment", ""))
                assert environment, f"{where} passes on the whole environment"
                assert "os.environ" not in environment, where
                if file.relative_to(ROOT).as_posix() not in (GIVES_ALL, GIVES_NONE):
                    assert "child_environment" in file.read_text(), where
    assert seen >= 10


def starts_a_process(function, starts):
    if isinstance(function, ast.Attribute):
        return ast.unparse(function.value) == "subprocess" and function.attr in starts
    return isinstance(function, ast.Name) and function.id == "run_logged"
