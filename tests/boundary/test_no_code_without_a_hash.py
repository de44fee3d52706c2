"""Nothing is installed or built without a hash: every call of pip and uv, and every image."""

import ast
import re
from pathlib import Path

import pytest

from launcher.project import LOCKS, ROOT

# What a person types on a machine of their own, and no command of ours.
_TYPED_BY_PEOPLE = {"CONTRIBUTING.md", ".pre-commit-config.yaml", "README.md", "CHANGELOG.md"}
_FOLDERS = {".ci", ".devcontainer", ".github", "benchmarks", "contract", "docker", "docs"}
_FOLDERS |= {"launcher", "notebooks", "tests", "trainer"}
_VERBS = ("install", "sync", "download", "compile", "wheel")
# Which archive, and that none is built. pip downloads one that it does not build either: see
# launcher/runtime/locked_packages.py. A lock is what the hashes come from.
_HASHES = ("--require-hashes", "--generate-hashes")
_NO_BUILD = (r"--no-build", r"--only-binary\s+:all:", r"--no-build-isolation")
_CALLS = {
    "benchmarks/gpu_machine.py": 1,
    "benchmarks/peers/environments.py": 1,
    "docker/trainer.Dockerfile": 2,
    "invoke": 1,
    "launcher/runtime/dependency_locks.py": 2,
    "launcher/runtime/environment.py": 1,
    "launcher/runtime/locked_packages.py": 1,
    "tests/boundary/test_wings.py": 1,
    "tests/container/test_images.py": 1,
}


def sources() -> list[Path]:
    """Every file of the project's that can hold a command."""
    tops = [path for path in ROOT.iterdir() if path.is_file() or path.name in _FOLDERS]
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*"))]
    return sorted(file for file in files if file.is_file() and is_ours(file))


def is_ours(file: Path) -> bool:
    name = file.relative_to(ROOT).as_posix()
    made = {"__pycache__", "locks"} & set(file.parts)
    # A .git file is a worktree's; what is not text holds no command.
    return not made and name not in _TYPED_BY_PEOPLE | {".git"} and file != Path(__file__)


def calls(file: Path) -> list[str]:
    """The commands in a file that have pip or uv install, fetch or resolve something."""
    text = file.read_text(encoding="utf-8", errors="replace")
    found = python_calls(text) if file.suffix == ".py" else shell_calls(text)
    return [call for call in found if not re.search(r"uv (venv|cache|python)", call)]


def shell_calls(text: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", " ", text)
    verb = rf"\b(?:pip3?|uvx?|pipx|poetry|conda)[\"']? (?:pip )?(?:{'|'.join(_VERBS)}|run|tool)\b"
    return re.findall(rf"^(?!\s*#).*?({verb}.*?)(?:&&|;|\|\||$)", joined, re.MULTILINE)


def python_calls(text: str) -> list[str]:
    """Each function's words where it has a list with `pip` and a verb: flags may come later."""
    found = []
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef):
            continue
        words = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        found += [
            " ".join(words)
            for node in ast.walk(function)
            if isinstance(node, ast.List) and is_call(node)
        ]
    return found


def is_call(node: ast.List) -> bool:
    words = [element.value for element in node.elts if isinstance(element, ast.Constant)]
    return "pip" in words and any(verb in words for verb in _VERBS)


def test_every_call_of_pip_and_uv_compares_hashes_and_builds_nothing():
    found = {file.relative_to(ROOT).as_posix(): calls(file) for file in sources()}
    assert {name: len(there) for name, there in found.items() if there} == _CALLS
    for name, there in found.items():
        for call in there:
            assert any(flag in call for flag in _HASHES) or "--constraint" in call, (name, call)
            assert any(re.search(flag, call) for flag in _NO_BUILD), (name, call)


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("RUN pip install --upgrade pip", 1),
        ("    uvx ruff check", 0),
        ('"$venv/bin/python" -m pip install x && echo done', 1),
        ("uv pip sync \\\n  a.lock", 1),
        ("- run: uv tool install ruff", 1),
        ("# pip install pre-commit", 0),
        ("uv venv here", 0),
    ],
)
def test_a_call_is_found_however_it_is_written(line, counts):
    assert len(shell_calls(line)) == counts


def test_a_call_in_python_is_found_with_its_flags():
    code = "def f():\n c = [uv(), 'pip', 'sync']\n c += ['--no-build']\n"
    assert python_calls(code) == ["pip sync --no-build"]


def test_a_go_module_is_built_by_its_own_list_of_hashes():
    told = {file.name: file.read_text("utf-8", errors="replace") for file in sources()}
    # A line of a guide may begin with "go on".
    verb = r"^\s*go (?:build|generate|get|install|mod|run|test|tool|work)\b"
    built = {name: text for name, text in told.items() if re.search(verb, text, re.M)}
    assert sorted(built) == ["ollama", "registry"]
    for text in built.values():
        assert re.findall(r"^\s*go (.+?) ", text, re.M) == ["build"]
        assert "go build -mod=readonly" in text


def test_every_lock_has_a_hash_for_every_package():
    for lock in [*LOCKS.glob("*.lock"), *(ROOT / "benchmarks").rglob("*.lock")]:
        entries = re.split(r"\n(?=[\w.-]+==)", "\n" + lock.read_text(encoding="utf-8"))[1:]
        assert entries, lock
        for entry in entries:
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), (lock.name, entry[:80])


def test_every_image_that_a_dockerfile_stands_on_is_named_by_digest():
    for dockerfile in (ROOT / "docker").glob("*.Dockerfile"):
        text = dockerfile.read_text(encoding="utf-8")
        own = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE)) | {"trainer"}
        given = dict(re.findall(r"^ARG (\w+)=(\S+)", text, re.MULTILINE))
        for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
            if image in own:
                continue
            named = given[image.strip("${}")]
            assert re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", named), (dockerfile.name, named)
        assert "COPY --from" not in text
        assert not re.search(r"^ADD\b", text, re.MULTILINE)


def test_every_action_of_the_workflow_is_named_by_its_commit():
    used = re.findall(r"uses: (\S+)", (ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    assert used
    assert all(re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", action) for action in used)
