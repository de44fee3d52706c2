"""Two wings and one door: neither imports the other's libraries, and the door is light."""

import ast
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher.project import LOCKS, ROOT, lock_file
from launcher.runtime import images
from launcher.runtime.dependency_locks import check_holds, lock_digest, pinned, uv
from launcher.runtime.gpu_generations import GENERATIONS

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "numpy", "gguf"}
# What the launcher starts in an environment of its own: see launcher/attest/environment.py.
ISOLATED = ROOT / "launcher" / "attest" / "isolated"
HOSTLY = {"docker", "invoke", "launcher", "rich", "ruamel"}


def modules(wing: str) -> list[str]:
    files = sorted((ROOT / wing).rglob("*.py"))
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in files
        if file.name != "__main__.py"
    ]


def environment(folder: Path, *packages: str) -> Path:
    """A new interpreter with these packages of the host lock and nothing else."""
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [uv(), "pip", "install", "--quiet", "--python", str(python)]
    command += ["--require-hashes", "--no-build"]
    command += ["--constraint", str(lock_file("host")), *packages]
    subprocess.run(command, check=True)
    return python


def import_all(python: Path, names: list[str]) -> str:
    done = subprocess.run(
        [str(python), "-c", "\n".join(f"import {name}" for name in names)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Path:
    """The launcher's own environment, out of its whole lock."""
    return environment(tmp_path_factory.mktemp("host"), "--requirement", str(lock_file("host")))


def test_every_module_of_the_launcher_imports_without_torch(host):
    assert "No module named 'torch'" in import_all(host, ["torch"])
    isolated = ".".join(ISOLATED.relative_to(ROOT).parts)
    names = [name for name in modules("launcher") if not name.startswith(f"{isolated}.")]
    assert import_all(host, names) == ""


def test_the_contract_imports_with_pydantic_alone(tmp_path):
    python = environment(tmp_path / "light", f"pydantic=={pinned('host')['pydantic']}")
    assert "No module named 'rich'" in import_all(python, ["rich"])
    assert import_all(python, modules("contract")) == ""


def imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
    return found


def test_the_trainer_never_imports_the_launchers_libraries():
    for file in (ROOT / "trainer").rglob("*.py"):
        strange = {name.partition(".")[0] for name in imported(file)} & HOSTLY
        assert not strange, f"{file} imports {strange}"


def test_the_launcher_never_imports_the_trainer():
    for file in [*(ROOT / "launcher").rglob("*.py"), ROOT / "tasks.py"]:
        names = imported(file)
        assert not {name.partition(".")[0] for name in names} & HEAVY, file
        assert not {name for name in names if name.partition(".")[0] == "trainer"}, file


def test_the_isolated_modules_import_of_ours_the_contract_and_what_they_exchange():
    ours = {"launcher.attest.exchange", "launcher.attest.isolated"}
    for file in ISOLATED.glob("*.py"):
        for name in imported(file):
            if name.partition(".")[0] in {"launcher", "trainer", "tasks"}:
                assert name in ours or name.startswith("launcher.attest.isolated."), file
    # Both sides import it.
    exchange = imported(ROOT / "launcher" / "attest" / "exchange.py")
    outer = {name.partition(".")[0] for name in exchange} - set(sys.stdlib_module_names)
    assert outer == {"contract", "pydantic"}


def test_the_engine_ollamas_container_and_the_push_alone_import_dockers_sdk():
    users = [
        file.relative_to(ROOT).as_posix()
        for file in [*sorted((ROOT / "launcher").rglob("*.py")), ROOT / "tasks.py"]
        if any(name.partition(".")[0] == "docker" for name in imported(file))
    ]
    of_the_engine = ("docker_container.py", "docker_engine.py", "docker_leftovers.py")
    assert users == [
        # It reads what `docker login` keeps.
        "launcher/pipeline/oci_push.py",
        *(f"launcher/runtime/{name}" for name in of_the_engine),
        "launcher/serving/ollama_container.py",
    ]


def test_the_door_stays_light():
    assert (ROOT / "trainer" / "__init__.py").read_text() == ""
    assert (ROOT / "contract" / "__init__.py").read_text() == ""
    for file in (ROOT / "contract").rglob("*.py"):
        outer = {name.partition(".")[0] for name in imported(file)} - set(sys.stdlib_module_names)
        # pydantic itself stands on typing_extensions.
        assert outer <= {"pydantic", "typing_extensions", "contract"}, file


def test_no_python_file_lies_in_docker():
    # It would shadow the SDK of the same name.
    assert list((ROOT / "docker").rglob("*.py")) == []


@pytest.mark.parametrize("lock", sorted(path.stem for path in LOCKS.glob("*.in")))
def test_every_package_is_locked_by_hash_and_no_index_is_named(lock):
    text = lock_file(lock).read_text()
    assert "://" not in text
    entries = text.count("==")
    assert entries == len(pinned(lock)) > 0
    blocks = [block for block in text.replace("\\\n", "").splitlines() if "==" in block]
    assert all("--hash=sha256:" in block for block in blocks)
    assert len(lock_digest(lock)) == 64


@pytest.mark.slow
def test_every_lock_holds_on_every_python_from_wheels_alone():
    # Side by side: each of them waits for the index most of the time.
    with ThreadPoolExecutor() as pool:
        list(pool.map(check_holds, [path.stem for path in LOCKS.glob("*.in")]))


@pytest.mark.parametrize("lock", [name for name in GENERATIONS if name != "rtx"])
def test_the_gpu_locks_differ_in_torch_and_what_comes_with_it_alone(lock):
    rtx, other = pinned("rtx"), pinned(lock)
    ours = set(HEAVY - {"torch"}) | {"accelerate", "tokenizers", "safetensors", "pydantic"}
    assert {name: rtx[name] for name in ours} == {name: other[name] for name in ours}
    assert rtx["torch"] != other["torch"]


def test_host_and_trainer_agree_where_they_share_a_package():
    host, rtx = pinned("host"), pinned("rtx")
    assert {name: host[name] for name in host.keys() & rtx.keys()} == {
        name: rtx[name] for name in host.keys() & rtx.keys()
    }


def test_the_devcontainer_names_the_image_that_the_project_builds():
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text()
    settings = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert settings["image"] == images.tag(images.DEV)
    assert "--dev" in settings["initializeCommand"]
    # Features are fetched from a registry, unpinned.
    assert "features" not in settings
