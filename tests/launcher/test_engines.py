"""Which engine is taken, what is refused, and what doctor says; without an engine.

tests/container holds the same against a real one.
"""

import platform
import shutil
import sys

import pytest

from contract.errors import UserError
from launcher.cli import doctor
from launcher.display import Display
from launcher.runtime import docker_errors
from launcher.runtime.docker_engine import DockerEngine
from launcher.runtime.engine_choice import choose_engine
from tests.conftest import NO_ENGINE, invoke

QUIET = Display(quiet=True)


@pytest.fixture
def no_engine(monkeypatch):
    for name, value in NO_ENGINE.items():
        monkeypatch.setenv(name, value)


def test_auto_takes_the_local_engine_where_none_answers_and_says_why(smoke_run):
    assert "engine local (docker: no engine responds at unix:///no/engine.sock)" in smoke_run.said


@pytest.mark.usefixtures("no_engine")
def test_docker_that_was_asked_for_and_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"no engine responds at unix:///no/engine\.sock.*--engine"):
        choose_engine("docker", "", QUIET)


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("name", ["auto", "local"])
def test_a_bound_of_memory_is_never_dropped_in_silence(name):
    with pytest.raises(UserError):
        choose_engine(name, "4g", QUIET)


def test_an_engine_that_is_none_is_refused():
    with pytest.raises(UserError, match="Known: auto, local, docker"):
        choose_engine("podman", "", QUIET)
    with pytest.raises(UserError, match="Known: auto, local, docker"):
        doctor.examine("smoke", "podman")


@pytest.mark.parametrize("given", ["plenty", "12 elephants", "4k", "-3g"])
def test_a_bound_of_memory_that_is_none_is_refused(given):
    with pytest.raises(UserError, match="--memory 12g"):
        DockerEngine(memory=given)


@pytest.mark.parametrize(
    ("version", "api", "old"),
    [("20.10.24+dfsg1", "1.41", True), ("23.0.6", "1.42", True), ("28.5.2", "1.51", False)],
)
def test_an_engine_too_old_is_refused(version, api, old):
    said = {"Version": version, "ApiVersion": api}
    if not old:
        docker_errors.check_version(said, "unix:///x")
        return
    with pytest.raises(UserError, match=rf"is {version[:4]}.*24.0 or newer.*--engine local"):
        docker_errors.check_version(said, "unix:///x")


def test_a_socket_of_others_is_told_from_an_engine_that_is_not_there():
    refused = "('Connection aborted.', PermissionError(13, 'Permission denied'))"
    assert "usermod -aG docker" in str(docker_errors.unreachable(refused, "unix:///x"))
    assert "systemctl start docker" in str(
        docker_errors.unreachable("Connection refused", "unix:///x")
    )


def test_an_engine_without_cards_is_told_from_other_failures():
    said = 'could not select device driver "" with capabilities: [[gpu]]'
    assert "NVIDIA Container Toolkit" in str(docker_errors.refused_start(said))
    assert "did not start: no space" in str(docker_errors.refused_start("no space"))


@pytest.mark.usefixtures("no_engine")
def test_doctor_has_a_remedy_for_all_that_is_amiss():
    findings = doctor.examine("rtx", "docker")
    states = {finding.subject: finding.state for finding in findings}
    assert states["engine"] == "fail"
    assert {"disk", "GPU", "Ollama"} <= states.keys()
    assert all(finding.remedy for finding in findings if finding.state != "ok")


def test_doctor_names_a_disk_that_is_too_full_for_an_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "CACHE", tmp_path)
    # This clone may have the environment already.
    monkeypatch.setattr(doctor.environment, "CACHE", tmp_path)
    usage = shutil._ntuple_diskusage(10**12, 10**12 - 10**9, 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    disk = next(f for f in doctor.examine("smoke", "local") if f.subject == "disk")
    assert disk.state == "fail"
    assert disk.what == (
        f"{tmp_path}: the disk has 1.0 GB free, but making the environment takes up to 12.0 GB"
    )
    assert "move data/cache" in disk.remedy


def test_doctor_says_which_python_is_taken():
    (line,) = [f for f in doctor.examine("smoke", "local") if f.subject == "python"]
    assert line.what.startswith(f"{platform.python_version()} at {sys.base_prefix}:")


def test_doctor_exits_by_what_it_found(plain_project):
    fit = invoke(plain_project, "doctor", "--profile", "smoke")
    assert fit.returncode == 0, fit.stdout
    assert "no engine responds" in fit.stdout
    unfit = invoke(plain_project, "doctor", "--profile", "smoke", "--engine", "docker")
    assert unfit.returncode == 2
    # A machine without a card, where no profile is named.
    assert "cpu: no NVIDIA GPU was found" in invoke(plain_project, "doctor").stdout
    unknown = invoke(plain_project, "doctor", "--profile", "smok")
    assert unknown.returncode == 2
    assert "Did you mean smoke?" in unknown.stderr
