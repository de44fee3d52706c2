"""A base is a name of ours, a hub repository or a folder, and anything else is explained."""

import json
import time
from threading import Thread

import pytest

from contract.digest import digest_of_file
from contract.errors import UserError
from launcher.pipeline.bases import CachedBase, LocalBase, find_base
from launcher.pipeline.file_digests import FileDigests
from launcher.runtime.exclusive_lock import exclusive_lock


def refusal(name):
    with pytest.raises(UserError) as caught:
        find_base(name, None, "rtx")
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "mon modèle"
    place.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (place / name).write_text("{}")
    return place


def test_the_smoke_base_is_embedded():
    base = find_base("smoke", None, "rtx")
    assert isinstance(base, CachedBase)
    assert base.request.kind == "smoke"


def test_a_name_in_models_yaml_brings_its_pinned_commit():
    base = find_base("qwen2.5-1.5b-instruct", None, "rtx")
    assert base.request.repository == "Qwen/Qwen2.5-1.5B-Instruct"
    assert len(base.request.revision) == 40


def test_a_hub_id_that_models_yaml_pins_is_pinned_too():
    named = find_base("qwen2.5-1.5b-instruct", None, "rtx")
    assert find_base("Qwen/Qwen2.5-1.5B-Instruct", None, "rtx") == named


def test_a_revision_given_wins():
    base = find_base("Qwen/Qwen2.5-1.5B-Instruct", "v1", "rtx")
    assert base.request.revision == "v1"
    assert base.folder.name.endswith("@v1")


def test_a_local_folder_is_used_where_it_lies(folder, tmp_path):
    base = find_base(str(folder), None, "rtx")
    assert isinstance(base, LocalBase)
    digests = FileDigests(tmp_path / "digests.json")
    before = base.identity(digests)
    (folder / "model.safetensors").write_text("changed")
    after = base.identity(digests)
    assert before.digest != after.digest
    assert before.source == "mon modèle"


def test_a_folder_lacking_files_names_each_of_them(folder):
    (folder / "config.json").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    )
    text = refusal(str(folder))
    assert "has no config.json" in text
    assert "has no model-1.safetensors" in text
    assert "has no model-2.safetensors" in text


def test_a_folder_with_a_gguf_is_told_to_give_the_file(folder):
    (folder / "model.safetensors").rename(folder / "model.gguf")
    assert "give the file and not its folder" in refusal(str(folder))


def test_an_unknown_name_suggests_the_nearest_one():
    assert "Did you mean smoke?" in refusal("smok")


def test_an_unfinished_base_does_not_count_and_a_changed_one_is_named(tmp_path):
    digests = FileDigests(tmp_path / "digests.json")
    base = find_base("smoke", None, "rtx")
    unfinished = CachedBase(base.request, tmp_path, base.key)
    assert unfinished.identity(digests) is None
    record = {"source": "smoke", "revision": None, "digest": "0", "files": {"gone.bin": "0"}}
    (tmp_path / "base.json").write_text(json.dumps(record))
    assert unfinished.identity(digests) is None
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "gone.bin").write_text("of another revision")
    with pytest.raises(UserError, match="is not the file that was stored for smoke") as changed:
        unfinished.identity(digests)
    assert "Delete " in str(changed.value)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Two clones' folders for one base that is made, and what makes it in a folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    request = find_base("smoke", None, "rtx").request
    first, second = (CachedBase(request, tmp_path / clone / "smoke-1", "k") for clone in "ab")

    def make(base):
        base.model.mkdir(parents=True)
        (base.model / "weights").write_text("made")
        files = {"weights": digest_of_file(base.model / "weights")}
        record = {"source": "smoke", "revision": None, "digest": "0", "files": files}
        (base.folder / "base.json").write_text(json.dumps(record))

    return first, second, make


def test_a_base_that_one_clone_made_another_takes(made, tmp_path):
    first, second, make = made
    digests = FileDigests(tmp_path / "digests.json")
    second.take()
    assert second.identity(digests) is None
    make(first)
    first.share()
    second.take()
    assert second.identity(digests) == first.identity(digests) is not None
    # A copy: what one clone does to its own reaches no other.
    (second.model / "weights").write_text("edited")
    first.take()
    assert first.identity(digests) is not None


@pytest.mark.parametrize("damage", ["weights", "record", "missing", "extra"])
def test_a_shared_base_that_is_damaged_is_not_taken_and_gives_way(made, tmp_path, damage):
    first, second, make = made
    make(first)
    first.share()
    kept = tmp_path / "cache" / "affineur" / "smoke-1"
    if damage == "weights":
        (kept / "model" / "weights").write_text("MADE")
    elif damage == "record":
        (kept / "base.json").write_text("{")
    elif damage == "missing":
        (kept / "base.json").unlink()
    else:
        (kept / "model" / "chat_template.jinja").write_text("")
    second.take()
    assert second.identity(FileDigests(tmp_path / "digests.json")) is None
    first.share()
    second.take()
    assert second.identity(FileDigests(tmp_path / "digests.json")) is not None


def test_two_that_share_at_once_leave_one_that_is_whole(made, tmp_path):
    first, second, make = made
    make(first)
    make(second)
    threads = [Thread(target=base.share) for base in (first, second) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in (tmp_path / "cache" / "affineur").iterdir()] == ["smoke-1"]
    second.take()
    assert second.identity(FileDigests(tmp_path / "digests.json")) is not None


def test_a_fetched_base_is_not_shared(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fetched = CachedBase(find_base("us/tiny", None, "rtx").request, tmp_path / "us--tiny", "k")
    fetched.model.mkdir(parents=True)
    (fetched.folder / "base.json").write_text("{}")
    fetched.share()
    assert not (tmp_path / "cache").exists()


def test_whoever_wants_a_base_that_is_being_made_waits_for_it(tmp_path):
    seen = []

    def second():
        with exclusive_lock(tmp_path / "lock", wait=True):
            seen.append((tmp_path / "base").exists())

    with exclusive_lock(tmp_path / "lock", wait=True):
        waiting = Thread(target=second)
        waiting.start()
        time.sleep(0.1)
        (tmp_path / "base").mkdir()
    waiting.join()
    assert seen == [True]
