"""What the notebook's cells stand on: commands whose failure stops it, and a copy that survives.

Kernels and commands are real ones; a script stands in for ./invoke.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from contract import paths
from contract.paths import WORK
from launcher.project import ROOT
from launcher.runtime.exclusive_lock import LOCK_FILE
from notebooks.session import KeptCopy, kept, mount


def write(root, *names, content="x"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def cell(command, code, folder):
    """Run a cell's code in a Python of its own, in a folder where ./invoke is this shell code."""
    script = folder / "invoke"
    script.write_text(f"#!/bin/sh\n{command}\n")
    script.chmod(0o755)
    before = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom notebooks.session import invoke\n"
    )
    return subprocess.run(
        [sys.executable, "-c", before + code],
        cwd=folder,
        # As a kernel's; PYTHON_COLORS: Python 3.13 colours its tracebacks by them.
        env={**os.environ, "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "PYTHON_COLORS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_shows_all_that_it_says_and_returns_its_output(tmp_path):
    done = cell(
        'echo "train: started" >&2; echo "given $*"',
        "print(repr(invoke('train', '--data', \"l'été 1.jsonl\")))",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        '"given train --data l\'été 1.jsonl\\n"',
        "given train --data l'été 1.jsonl",
        "train: started",
    ]


def test_a_command_does_not_take_the_cell_for_a_terminal(tmp_path):
    display = "from launcher.display import Display; print(Display().console.is_terminal)"
    asks = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -c "{display}"'
    assert cell(asks, "invoke('train')", tmp_path).stdout == "False\n"


def test_a_command_that_fails_ends_the_notebook(tmp_path):
    done = cell("echo no card >&2; exit 2", "invoke('train')\nprint('went on')", tmp_path)
    assert done.returncode == 1
    assert done.stdout == "no card\n"
    assert "CommandError: ./invoke train ended with 2. What it said stands above." in done.stderr


def test_an_interrupted_cell_waits_for_what_the_command_still_saves(tmp_path):
    (tmp_path / "invoke").write_text(
        f"#!{sys.executable}\n"
        "import signal, sys, time\n"
        "try:\n"
        "    print('training', flush=True)\n"
        "    time.sleep(600)\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(0.5)\n"
        "    print('checkpoint saved', flush=True)\n"
        "    sys.exit(130)\n"
    )
    (tmp_path / "invoke").chmod(0o755)
    own = {name: str(tmp_path / name) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    manager, client = start_new_kernel(
        kernel_name="python3",
        cwd=str(tmp_path),
        env={**os.environ, **own, "PYTHONPATH": str(ROOT)},
    )
    shown = []

    def hear(message):
        content = message["content"]
        shown.append(content.get("text", "") or content.get("evalue", ""))
        if "training" in content.get("text", ""):
            manager.interrupt_kernel()

    try:
        reply = client.execute_interactive(
            "from notebooks.session import invoke\ninvoke('train')", output_hook=hear, timeout=60
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["ename"] == "CommandError"
    said = "".join(shown)
    assert said.index("checkpoint saved") < said.index("was stopped; run the cell again to go on")


def test_what_a_training_needs_to_go_on_is_kept_and_what_is_made_from_it_is_not(tmp_path):
    models, place = tmp_path / "here" / "models", tmp_path / "drive"
    work = f"0123/{WORK}"
    checkpoint = f"{work}/train/{paths.CHECKPOINTS}/{paths.checkpoint_name(8)}"
    going = [f"0123/{paths.STAGES}/prepare.json", f"0123/{paths.PREPARED_TRAIN}", "latest"]
    going += [f"{work}/train.key", f"{checkpoint}/adapter.safetensors"]
    done = [f"89ab/{paths.ADAPTER}/adapter_model.safetensors", f"89ab/{paths.MANIFEST}"]
    left = [f"0123/{LOCK_FILE}", f"0123/.{paths.RECIPE}.x1", f"{work}/train.code/contract/a.py"]
    left += [f"{work}/preflight/base/model.safetensors", f"{checkpoint}.unfinished/a"]
    left += [f"89ab/{paths.MERGED}/model.safetensors", f"89ab/{paths.gguf_name('f16')}"]
    write(models / "m", *going, *done, *left)
    (models / "m/0123/link").symlink_to("/etc/passwd")
    KeptCopy(models, place).update()
    assert files(place / "m") == sorted(going + done)
    new = tmp_path / "there" / "models"
    KeptCopy(new, place).bring_back()
    assert files(new / "m") == sorted(going + done)


def test_a_new_checkpoint_is_copied_before_the_old_one_goes(tmp_path):
    models, place = tmp_path / "models", tmp_path / "drive"
    step = "m/0123/.work/train/checkpoints/step-{}/adapter.safetensors"
    write(models, step.format(8))
    copy = KeptCopy(models, place)
    copy.update()
    write(models, step.format(9))
    (models / step.format(8)).unlink()
    (models / step.format(8)).parent.rmdir()
    # Where it cannot be copied: a folder is in its way.
    blocked = place / step.format(9)
    blocked.mkdir(parents=True)
    (blocked / "x").write_text("")
    copy.update()
    assert (place / step.format(8)).exists()
    (blocked / "x").unlink()
    blocked.rmdir()
    copy.update()
    assert files(place) == [step.format(9)]
    assert not (place / step.format(8)).parent.exists()
    # The training has ended.
    shutil.rmtree(models / "m/0123/.work")
    copy.update()
    assert list((place / "m/0123").iterdir()) == []


def test_what_was_lost_here_stays_in_the_copy(tmp_path):
    models, place = tmp_path / "models", tmp_path / "drive"
    write(models, "m/0123/adapter/adapter_model.safetensors")
    copy = KeptCopy(models, place)
    copy.update()
    (models / "m/0123/adapter/adapter_model.safetensors").unlink()
    copy.update()
    assert files(place) == ["m/0123/adapter/adapter_model.safetensors"]


def test_what_was_not_changed_is_not_copied_again_and_what_was_is(tmp_path):
    models, place = tmp_path / "models", tmp_path / "drive"
    write(models, "m/a", "m/b")
    copy = KeptCopy(models, place)
    copy.update()
    for name in ("m/a", "m/b"):
        (place / name).write_text("as the place has it")
    write(models, "m/b", content="newer")
    copy.update()
    assert (place / "m/a").read_text() == "as the place has it"
    assert (place / "m/b").read_text() == "newer"


def test_what_is_here_is_not_replaced_by_the_copy(tmp_path):
    models, place = tmp_path / "models", tmp_path / "drive"
    write(models, "m/a", content="here")
    write(place, "m/a", "m/b", content="kept")
    KeptCopy(models, place).bring_back()
    assert [(models / name).read_text() for name in ("m/a", "m/b")] == ["here", "kept"]


def test_it_is_copied_while_the_training_lasts_and_once_more_at_its_end(tmp_path):
    models, place = tmp_path / "models", tmp_path / "drive"

    def train():
        write(models, "m/a")
        deadline = time.monotonic() + 60
        while not (place / "models/m/a").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        write(models, "m/b")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), kept(models, place, every_s=0.01):
        train()
    assert files(place) == ["models/m/a", "models/m/b"]


def test_what_else_is_in_the_place_is_left_there(tmp_path):
    write(tmp_path, "drive/my-model.zip", "drive/models/m/a")
    with kept(tmp_path / "models", tmp_path / "drive"):
        assert files(tmp_path / "models") == ["m/a"]
    assert files(tmp_path / "drive") == ["models/m/a", "my-model.zip"]


def test_a_place_that_is_full_or_gone_does_not_end_the_training(tmp_path, capsys):
    write(tmp_path / "models", "m/a")
    (tmp_path / "drive").write_text("no folder")
    with kept(tmp_path / "models", tmp_path / "drive"):
        pass
    assert "could not be copied to" in capsys.readouterr().out


def test_nothing_is_kept_where_no_place_is_named(tmp_path):
    assert mount("") is None
    with kept(tmp_path / "models", None):
        write(tmp_path / "models", "m/a")
    assert files(tmp_path) == ["models/m/a"]


def test_a_place_elsewhere_is_made_and_nothing_is_mounted(tmp_path):
    assert mount(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert Path(tmp_path / "a" / "b").is_dir()
