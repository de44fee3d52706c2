"""A base is a name of ours, a hub repository or a folder, and anything else is explained."""

import json

import pytest

from contract.errors import UserError
from launcher.pipeline.bases import CachedBase, LocalBase, find_base
from launcher.pipeline.file_digests import FileDigests


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


def test_a_folder_with_a_gguf_is_told_why_not(folder):
    (folder / "model.safetensors").rename(folder / "model.gguf")
    assert "A GGUF is made for serving" in refusal(str(folder))


def test_an_ollama_tag_is_told_why_not():
    assert "looks like an Ollama tag" in refusal("qwen3:32b-q4_K_M")


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
    with pytest.raises(UserError, match="is not the file that was put there for smoke") as changed:
        unfinished.identity(digests)
    assert "Remove " in str(changed.value)
