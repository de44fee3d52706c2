"""The exporter: the trainer's layers and one more, and in it what the local engine has."""

import pytest

from contract import paths
from contract.digest import digest_of_file
from contract.recipe import Recipe
from launcher.project import ROOT
from launcher.runtime import images
from launcher.runtime.engine import Mount
from launcher.runtime.llama_cpp_tools import PROGRAMS
from tests.conftest import apart, invoke, stage
from tests.container.conftest import ENGINE, QUIET, probe

_LARGEST_ADDITION_BYTES = 60 * 10**6


@pytest.fixture(scope="module")
def exporter(engine, tools):
    del tools
    return engine.image("rtx", QUIET, exporter=True)


def test_it_stands_on_the_trainers_layers_and_adds_one(engine, exporter):
    engine.image("rtx", QUIET)
    trainer, standing = (
        engine._client.images.get(images.tag(target)) for target in ("rtx", images.exporter("rtx"))
    )
    below, above = (image.attrs["RootFS"]["Layers"] for image in (trainer, standing))
    assert above[: len(below)] == below
    assert len(above) == len(below) + 1
    added = standing.attrs["Size"] - trainer.attrs["Size"]
    assert 0 < added < _LARGEST_ADDITION_BYTES
    assert exporter.digest == str(standing.id)


def test_the_tools_in_it_are_the_local_engines(engine, exporter, tools, run):
    del exporter
    code = (
        "import hashlib\n"
        "from pathlib import Path\n"
        "say(**{p.name: hashlib.sha256(p.read_bytes()).hexdigest()"
        " for p in Path('/affineur/tools').glob('llama-*')},"
        " help=subprocess.run(['llama-quantize', '--help'], capture_output=True, text=True).stdout,"
        " converter=Path('/affineur/llama_cpp/convert_hf_to_gguf.py').is_file(),"
        " markers=[str(p) for p in Path('/affineur').rglob('.whole.json')])"
    )
    values, ending = probe(engine, run, code, exporter=True)
    assert ending.code == 0
    assert values["converter"] is True
    # What `./invoke build --check` compiles has none.
    assert values["markers"] == []
    assert "Q4_K_M" in values["help"]
    assert {name: values[name] for name in PROGRAMS} == {
        name: digest_of_file(tools / name) for name in PROGRAMS
    }


def test_what_it_brings_along_is_not_mounted_over(engine, exporter, run, tmp_path):
    del exporter
    (tmp_path / "empty").mkdir()
    mounts = (Mount("tools", tmp_path / "empty"),)
    values, _ = probe(
        engine, run, "say(there=os.listdir('/affineur/tools'))", exporter=True, mounts=mounts
    )
    assert set(PROGRAMS) <= set(values["there"])


def test_a_k_quant_made_in_it_is_the_local_engines_to_the_byte(
    engine, exporter, tools, run_copy, tmp_path
):
    del engine, exporter
    path = run_copy / paths.RECIPE
    asked = Recipe.read(path).model_copy(update={"quantizations": ["q4_k_m"]})
    path.write_text(asked.model_dump_json())
    code, _, log = stage("trainer.quantize", "--run", str(run_copy), "--tools", str(tools))
    assert code == 0, log
    files = [run_copy / paths.gguf_name("q4_k_m"), run_copy / paths.IMATRIX]
    local = [digest_of_file(file) for file in files]
    for file in files:
        file.unlink()
    apart(
        "from launcher.display import Display\n"
        "from launcher.runtime.docker_engine import DockerEngine\n"
        "from launcher.runtime.engine import Job, Mount\n"
        "run, tools, log = map(Path, sys.argv[1:])\n"
        "mounts = (Mount('run', run, writable=True), Mount('tools', tools))\n"
        "engine, quiet = DockerEngine(), Display(quiet=True)\n"
        "image = engine.image('rtx', quiet, exporter=True).digest\n"
        "job = Job('trainer.quantize', 'rtx', mounts, log, exporter=True, image=image)\n"
        "assert engine.run(job, print, quiet).code == 0",
        run_copy,
        tools,
        tmp_path / "log",
    )
    assert [digest_of_file(file) for file in files] == local


def test_it_is_built_by_name(exporter, engine):
    done = invoke(ROOT, "build", "--profile", "smoke", "--exporter", **ENGINE)
    assert done.returncode == 0, done.stderr
    tag, digest = done.stdout.split()
    assert tag == "affineur/exporter:rtx"
    assert digest == engine.image("rtx", QUIET, exporter=True).digest == exporter.digest
