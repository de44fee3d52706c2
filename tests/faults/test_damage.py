"""Files that are cut, flipped, emptied or gone: found before they are used, and made again."""

import shutil

import pytest

from tests.faults.conftest import count, drawn, start_over, times

# One that each stage wrote, and what the launcher keeps itself. By pattern, from the run's folder.
_IN_THE_RUN = [
    *("manifest.json", "recipe.json", "base.json", "stages/train.json", "stages/convert.json"),
    *("prepared/train.jsonl", "prepared/held_out.jsonl", "prepared/chat_format.json"),
    *("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "held_out.json"),
    *("trained_tokens.json", "merged/*.safetensors", "merged/tokenizer.json"),
    *("gguf/model-f16.gguf", "gguf/read_back.json", "Modelfile", "serving.json", "reference.json"),
]
# From data/cache: what runs share. Copied first, since it is another clone's.
_IN_THE_CACHE = [
    *("digests.json", "bases/smoke-*/base.json", "bases/smoke-*/model/*.safetensors"),
    *(
        "llama.cpp/*/convert_hf_to_gguf.py",
        "llama.cpp/*/conversion/*.py",
        "llama.cpp/*/.whole.json",
    ),
]


def cut(path, random):
    content = path.read_bytes()
    path.write_bytes(content[: random.randrange(len(content))])


def flip(path, random):
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def empty(path, _random):
    path.write_bytes(b"")


def remove(path, _random):
    path.unlink()


DAMAGES = [cut, flip, empty, remove]


@pytest.fixture(scope="module")
def finished(small, undisturbed):
    """The run, whole; its cache its own."""
    cache = small.project / "data" / "cache"
    if cache.is_symlink():
        shared = cache.resolve()
        cache.unlink()
        shutil.copytree(shared, cache, symlinks=True)
    start_over(small)
    done = small.train()
    assert done.returncode == 0, done.stderr
    return small


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file(finished, undisturbed, damage):
    random = drawn(f"damage {damage.__name__}")
    run, cache = finished.folder, finished.project / "data" / "cache"
    patterns = [(run, name) for name in _IN_THE_RUN] + [(cache, name) for name in _IN_THE_CACHE]
    random.shuffle(patterns)
    for root, pattern in patterns[: times(len(patterns))]:
        path = random.choice([path for path in sorted(root.glob(pattern)) if path.is_file()])
        damage(path, random)
        done = finished.train()
        assert "Traceback" not in done.stderr, (path, done.stderr)
        ended = "made again, and the same to the byte"
        if done.returncode != 0:
            # What cannot be made again is said, with what to do; here: to remove it.
            assert done.returncode == 2, (path, done.stderr)
            assert str(path.name) in done.stderr or "Delete it" in done.stderr, (path, done.stderr)
            ended = "refused in a sentence"
            if path.is_relative_to(cache / "bases"):
                shutil.rmtree(cache / "bases" / path.relative_to(cache / "bases").parts[0])
            else:
                path.unlink(missing_ok=True)
            done = finished.train()
            assert done.returncode == 0, (path, done.stderr)
        finished.check_whole(undisturbed.outputs)
        count(f"a file: {damage.__name__}", ended)
