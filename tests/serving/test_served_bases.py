"""A model that a real server has is found as a base, by what that server reports of it."""

import pytest

from contract.digest import digest_of_file
from contract.errors import UserError
from launcher.display import Display
from launcher.pipeline.bases import find_base
from launcher.serving.served_bases import ServedBases
from tests import gguf_files

SYSTEM = "Tu classes\nADAPTER /des/exigences."
MODELFILE = (
    'FROM {}\nTEMPLATE "{{{{ .Prompt }}}}"\nSYSTEM """{}"""\n'
    'PARAMETER temperature 0.3\nPARAMETER stop "<|im_end|>"\nPARAMETER stop "la fin"\n'
)


@pytest.fixture
def served(ollama, tmp_path):
    """Makes a model of a GGUF file as people do, with `ollama create`."""
    names = []

    def create(name, file):
        modelfile = tmp_path / f"{name}.Modelfile"
        modelfile.write_text(MODELFILE.format(file, SYSTEM))
        done = ollama.run("create", name, "-f", str(modelfile))
        assert done.returncode == 0, done.stderr
        names.append(name)
        return file

    yield create
    for name in names:
        ollama.run("rm", name)


def test_a_model_that_people_made_is_a_base(connected, served, tmp_path):
    file = served("analyste", gguf_files.write(tmp_path / "m.gguf"))
    base = find_base("analyste", None, "rtx", server=ServedBases(connected))
    found = base.gguf.locate(Display(quiet=True))
    assert digest_of_file(found) == digest_of_file(file) == base.request.gguf.sha256
    assert base.request.gguf.stops == ["<|im_end|>", "la fin"]
    assert base.gguf.system_prompt == SYSTEM
    assert base.gguf.not_taken == ("temperature 0.3",)


def test_a_model_without_a_jinja_template_is_refused(connected, served, tmp_path):
    served("sans-modele", gguf_files.write(tmp_path / "m.gguf", template=None))
    with pytest.raises(UserError, match="Go's language, in which nothing can be trained"):
        find_base("sans-modele", None, "rtx", server=ServedBases(connected))


def test_an_unknown_name_lists_the_servers_models(connected, served, tmp_path):
    served("analyste", gguf_files.write(tmp_path / "m.gguf"))
    with pytest.raises(UserError, match="Did you mean analyste"):
        find_base("analiste", None, "rtx", server=ServedBases(connected))
