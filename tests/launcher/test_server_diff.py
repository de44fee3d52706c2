"""What a server's report is compared with, by its version.

The servers here are not real: those from 0.30 to 0.33, which write a file anew, are not built here;
tests/serving asks real ones of other ages.
"""

from pathlib import Path

import pytest

from contract.serving import Serving
from launcher.pipeline.model_files import ModelFiles
from launcher.serving.server_diff import differences

SENT = {"gguf/model-q8_0.gguf": "sha256:" + "a" * 64}
SERVING = Serving(
    gguf="gguf/model-q8_0.gguf",
    template="{{ .Prompt }}",
    system=None,
    parameters={"stop": ["<|im_end|>", "</s>"], "temperature": 0, "num_ctx": 512},
)
FILES = ModelFiles("m", Path(), SERVING, SENT)


class Reporting:
    """Reports a file of other bytes, and all else as it was sent."""

    def __init__(self, version):
        self.version = version

    def show(self, model):
        return {
            "modelfile": f"# {model}\nFROM /blobs/sha256-{'b' * 64}\n",
            "template": "{{ .Prompt }}",
            "parameters": 'stop   "</s>"\nstop   "<|im_end|>"\nnum_ctx   512\ntemperature   0',
        }


@pytest.mark.parametrize("version", ["0.30.0", "0.33.9"])
def test_servers_that_write_a_file_anew_are_not_asked_for_its_digest(version):
    assert differences(Reporting(version), "m", FILES) == []


@pytest.mark.parametrize("version", ["0.6.5", "0.29.0", "0.34.1", "0.40.1"])
def test_all_others_are(version):
    (found,) = differences(Reporting(version), "m", FILES)
    assert found.startswith("files: ['bbb")
