"""Which Python is taken: by ./invoke for .venv, and by the launcher for its environments."""

import shutil
import subprocess
import sys
import tomllib

import pytest

from contract.errors import UserError
from launcher.display import Display
from launcher.project import ROOT
from launcher.runtime import dependency_locks
from launcher.runtime import environment as environments
from launcher.runtime.environment import ensure_environment, environment_folder

QUIET = Display(quiet=True)
# Answers as the interpreter of a version does, and makes an environment that answers alike.
_INTERPRETER = """#!/bin/sh
case "$*" in
*version_info*) echo {version} ;;
*ensurepip*) exit {without_venv} ;;
*"pip --python"*) exit {without_pip} ;;
*"-m venv"*)
    for folder; do :; done
    mkdir -p "$folder/bin" "$folder/lib/python{version}"
    cp "$0" "$folder/bin/python"
    case "$*" in *--without-pip*) ;; *) cp "$0" "$folder/bin/pip" ;; esac ;;
*"-m pip install"*) echo "$0" >"${{PIP_PYTHON%/bin/python}}/installed-by" ;;
*'run_module("invoke"'*) echo "started by $0, of Python {version}" ;;
esac
"""


class Machine:
    """A clone, and a PATH with the interpreters that a test gives it and nothing else."""

    def __init__(self, folder):
        self.project, self.path = folder / "clone", folder / "bin"
        self.path.mkdir()
        for name in ("sh", "dirname", "cmp", "cp", "rm", "mkdir"):
            (self.path / name).symlink_to(shutil.which(name))
        (self.project / "docker" / "locks").mkdir(parents=True)
        shutil.copy(ROOT / "invoke", self.project / "invoke")
        self.lock = self.project / "docker" / "locks" / "host.lock"
        self.lock.write_text("a==1\n")
        self.venv = self.project / ".venv"

    def install(self, name, version, *, without_venv=False, without_pip=False):
        file = self.path / name
        file.unlink(missing_ok=True)
        file.write_text(
            _INTERPRETER.format(
                version=version, without_venv=int(without_venv), without_pip=int(without_pip)
            )
        )
        file.chmod(0o755)

    def invoke(self):
        return subprocess.run(
            [str(self.project / "invoke"), "--list"],
            env={"PATH": str(self.path)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3.11": "3.11", "python3.13": "3.13"}, "3.11"),
        ({"python3": "3.13"}, "3.13"),
        ({"python3.12": "3.12", "python3": "3.14"}, "3.12"),
        ({"python3": "2.7", "python": "3.12"}, "3.12"),
        # pyenv has names for versions that are not active: they do not run.
        ({"python3.11": "", "python3": "3.13"}, "3.13"),
    ],
)
def test_the_first_supported_interpreter_is_taken(machine, there, taken):
    for name, version in there.items():
        machine.install(name, version)
    done = machine.invoke()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"started by {machine.venv}/bin/python, of Python {taken}\n"
    assert f"making .venv from docker/locks/host.lock with Python {taken}" in done.stderr
    assert machine.invoke().stderr == ""


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ({}, "none is there. "),
        ({"python3": "3.10"}, "none is there (python3 is 3.10). "),
        (
            {"python3.11": "", "python3": "3.14", "python": "2.7"},
            "(python3 is 3.14, python is 2.7)",
        ),
    ],
)
def test_where_there_is_none_a_sentence_says_what_is_there_and_what_to_do(machine, there, said):
    for name, version in there.items():
        machine.install(name, version)
    done = machine.invoke()
    assert done.returncode == 2
    assert done.stderr.startswith("affineur: Python 3.11, 3.12 or 3.13 is needed, and ")
    assert said in done.stderr
    assert "apt install python3-venv" in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_that_cannot_make_environments_is_passed_over_or_named_with_its_package(machine):
    machine.install("python3.12", "3.12", without_venv=True, without_pip=True)
    done = machine.invoke()
    assert done.returncode == 2
    assert done.stderr.startswith("affineur: Python 3.12 is there and cannot make an environment.")
    assert "apt install python3.12-venv." in done.stderr
    machine.install("python3", "3.13")
    done = machine.invoke()
    assert done.returncode == 0, done.stderr
    assert "Python 3.13" in done.stdout


def test_where_environments_come_without_a_pip_the_interpreters_own_installs_into_ours(machine):
    # As on Colab, and on Debian without python3-venv.
    machine.install("python3.12", "3.12", without_venv=True)
    done = machine.invoke()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"started by {machine.venv}/bin/python, of Python 3.12\n"
    assert (machine.venv / "installed-by").read_text() == f"{machine.path}/python3.12\n"
    assert machine.invoke().stderr == ""


def test_a_python_that_makes_whole_environments_is_preferred_to_one_that_does_not(machine):
    machine.install("python3.11", "3.11", without_venv=True)
    machine.install("python3", "3.13")
    done = machine.invoke()
    assert "of Python 3.13" in done.stdout, done.stderr
    assert not (machine.venv / "installed-by").exists()


def test_an_environment_stays_with_its_python_whatever_else_is_installed(machine):
    machine.install("python3", "3.13")
    machine.invoke()
    machine.install("python3.11", "3.11")
    machine.lock.write_text("a==2\n")
    done = machine.invoke()
    assert "bringing .venv up to date" in done.stderr
    assert "of Python 3.13" in done.stdout
    assert (machine.venv / "host.lock").read_text() == "a==2\n"


@pytest.mark.parametrize("here", ["3.12", ""])
def test_a_venv_of_another_python_or_machine_is_made_anew_and_that_is_said(machine, here):
    machine.install("python3", "3.11")
    machine.invoke()
    # Its interpreter is a link to one of the machine, which is another one in a container.
    (machine.venv / "bin" / "python").unlink()
    (machine.venv / "bin" / "python").symlink_to(machine.path / "python3")
    (machine.path / "python3").unlink()
    machine.install("python3" if here else "python3.12", "3.12")
    done = machine.invoke()
    assert done.returncode == 0, done.stderr
    assert "with Python 3.12 (the one here is of another Python or machine)" in done.stderr
    assert [folder.name for folder in (machine.venv / "lib").iterdir()] == ["python3.12"]
    assert machine.invoke().stderr == ""


def test_every_place_that_names_the_versions_names_the_same():
    script = (ROOT / "invoke").read_text()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    oldest, newest = dependency_locks.PYTHONS[0], dependency_locks.PYTHONS[-1]
    after = f"3.{int(newest.partition('.')[2]) + 1}"
    assert f"case $1 in {' | '.join(dependency_locks.PYTHONS)}) ;;" in script
    assert (
        f"for candidate in {' '.join(f'python{v}' for v in dependency_locks.PYTHONS)} python3"
        in script
    )
    assert settings["project"]["requires-python"] == f">={oldest},<{after}"
    assert settings["tool"]["mypy"]["python_version"] == oldest
    assert settings["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a lock of nothing: environments in it are made in an instant."""
    monkeypatch.delenv("AFFINEUR_ENVIRONMENT", raising=False)
    lock = tmp_path / "locks" / "none.lock"
    lock.parent.mkdir()
    lock.write_text("# Nothing.\n")
    monkeypatch.setattr(environments, "CACHE", tmp_path / "cache")
    for module in (environments, dependency_locks):
        monkeypatch.setattr(module, "lock_file", lambda name: lock.with_name(f"{name}.lock"))
    return lock


@pytest.mark.slow
def test_a_lock_without_what_a_newer_python_needs_is_refused_by_name(cache, monkeypatch):
    monkeypatch.setattr(dependency_locks, "LOCKS", cache.parent)
    cache.with_suffix(".in").write_text('pip\niniconfig; python_version >= "3.13"\n')
    cache.write_text("pip==25.0 ; sys_platform == 'linux'\n")
    assert dependency_locks.pinned("none") == {"pip": "25.0"}
    with pytest.raises(UserError, match=r"none.lock: Python 3\.13 needs iniconfig as well"):
        dependency_locks.check_holds("none")
    cache.write_text("pip==25.0\niniconfig==2.3.1\n")
    dependency_locks.check_holds("none")


def version_of(python):
    said = subprocess.run(
        [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2], sys.prefix)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.split(maxsplit=1)


def test_an_environment_is_made_with_the_launchers_own_interpreter(cache):
    python = ensure_environment("none", ["none"], QUIET)
    version, prefix = version_of(python)
    assert version == dependency_locks.python_version()
    assert prefix.strip() == str(environment_folder("none"))
    settings = (environment_folder("none") / "pyvenv.cfg").read_text()
    assert f"home = {sys.base_prefix}/bin\n" in settings


def test_launchers_of_two_pythons_in_one_clone_keep_an_environment_each(cache, monkeypatch):
    first = ensure_environment("none", ["none"], QUIET)
    made = first.stat(follow_symlinks=False).st_mtime_ns
    monkeypatch.setattr(environments, "python_version", lambda: "3.99")
    assert ensure_environment("none", ["none"], QUIET) != first
    monkeypatch.undo()
    assert first.stat(follow_symlinks=False).st_mtime_ns == made


def test_an_environment_whose_interpreter_became_another_is_made_anew(cache):
    python = ensure_environment("none", ["none"], QUIET)
    # As after an upgrade of the machine: the link leads to another version.
    other = next(python.parent.parent.glob("lib/python3.*"))
    other.rename(other.with_name("python3.0"))
    assert ensure_environment("none", ["none"], QUIET) == python
    assert other.is_dir()
    assert not other.with_name("python3.0").exists()
