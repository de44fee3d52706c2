"""On WSL the driver is Windows's: no remedy has a person install one inside.

The kernel's own words stand in for a machine with Windows.
"""

from pathlib import Path

import pytest

from contract.errors import UserError
from launcher.cli import doctor
from launcher.runtime import gpus
from launcher.runtime.wsl import driver_remedy, on_windows_drive, wsl_version

WSL_1 = "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com) (gcc version 5.4.0 (GCC) )"
WSL_2 = "Linux version 5.15.153.1-microsoft-standard-WSL2 (root@941d701f84f1) (gcc (GCC) 11.2.0)"
DEBIAN = "Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14))"
OWN_FILES = Path("/home/me/affineur")


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A PATH with a driver's tool that prints and ends so, or with none."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def answering(line, code=0):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\necho '{line}'\nexit {code}\n")
        tool.chmod(0o755)

    return answering


@pytest.mark.parametrize(
    ("kernel", "version"), [(WSL_1, 1), (WSL_2, 2), (DEBIAN, None), ("", None)]
)
def test_wsl_is_told_by_its_kernel(kernel, version):
    assert wsl_version(kernel) == version


def test_outside_of_wsl_a_remedy_stays_as_it_is():
    assert driver_remedy("Reboot.", DEBIAN) == "Reboot."


def subjects(profile, kernel, project=OWN_FILES):
    findings = doctor.examine(profile, "local", kernel=kernel, project=project)
    return {finding.subject: finding for finding in findings}


@pytest.mark.usefixtures("driver")
def test_without_a_driver_doctor_sends_to_windows_and_not_to_linux():
    found = subjects("rtx", WSL_2)["GPU"]
    assert found.state == "fail"
    assert "Install NVIDIA's driver for Windows, and none inside WSL." in found.remedy
    assert "wsl --update and wsl --shutdown" in found.remedy
    assert "wsl --set-version NAME 2" in subjects("rtx", WSL_1)["GPU"].remedy
    elsewhere = subjects("rtx", DEBIAN)["GPU"].remedy
    assert elsewhere == "Install the driver. Or use --profile cpu or --profile smoke."


@pytest.mark.usefixtures("driver")
def test_a_run_without_a_profile_says_what_hides_a_card():
    # It would otherwise train on the processor, and say that there is no card.
    assert "driver for Windows" in subjects("auto", WSL_2)["profile"].what
    assert gpus.choose_profile(DEBIAN) == gpus.ProfileChoice("cpu", "no NVIDIA GPU was found")


def test_a_driver_that_does_not_answer_is_windowss(driver):
    driver("Failed to initialize NVML: GPU access blocked by the operating system", code=17)
    with pytest.raises(UserError, match=r"access blocked .*driver for Windows, and none inside"):
        gpus.check_gpu("rtx", "bf16", WSL_2)


def test_a_driver_that_is_too_old_is_updated_on_windows(driver):
    driver("NVIDIA GeForce RTX 3070, 550.54.14, 8192, 8.6")
    with pytest.raises(UserError, match=r"Install driver 580 or newer on Windows, or use"):
        gpus.check_gpu("rtx", "bf16", WSL_2)
    with pytest.raises(UserError, match=r"Install driver 580 or newer, or use"):
        gpus.check_gpu("rtx", "bf16", DEBIAN)


@pytest.mark.parametrize(
    ("project", "state"),
    [("/mnt/c/Users/me/affineur", "warn"), ("/mnt/d", "warn"), ("/mnt/data/a", "ok")],
)
def test_a_clone_on_a_drive_of_windowss_is_named(project, state):
    found = subjects("smoke", WSL_2, Path(project))["WSL"]
    assert found.state == state
    assert ("~/affineur" in found.remedy) == on_windows_drive(Path(project)) == (state == "warn")


def test_no_other_machine_gets_a_line_about_wsl():
    assert "WSL" not in subjects("smoke", DEBIAN, Path("/mnt/c/affineur"))
