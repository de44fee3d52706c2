"""A run has one bill of materials: CycloneDX with cards of its models, from its manifest alone."""

import json
import re
import shutil
import subprocess

import pytest

from contract.errors import UserError
from contract.manifest import Check, Verification
from contract.results.train import TrainResult
from launcher.attest.bill_of_materials import bill_of_materials, write_bom
from launcher.attest.requirements import requirements
from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.project import ROOT, lock_file
from launcher.runtime.dependency_locks import pinned
from launcher.runtime.environment import ensure_environment
from tests.conftest import invoke
from tests.hand_made_run import COMMIT, GGUF, make_run, sha256

QUIET = Display(quiet=True)
# OWASP's own validator, with the schema that comes with it.
VALIDATE = """
import sys
from pathlib import Path
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(Path(sys.argv[1]).read_text("utf-8"))
print(problem or "valid")
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A run's bill of materials, written once for all that look at it."""
    folder = tmp_path_factory.mktemp("bill")
    write_bom(make_run(folder / "run", image=True), folder / "bom.json", QUIET)
    return folder / "bom.json"


@pytest.fixture
def written(file):
    """It as plain values."""
    return json.loads(file.read_text(encoding="utf-8"))


def validated(file):
    python = ensure_environment("attest", ["attest"], QUIET)
    done = subprocess.run(
        [str(python), "-c", VALIDATE, str(file)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def by_ref(document):
    model = document["metadata"]["component"]
    return {part["bom-ref"]: part for part in [model, *document["components"]]}


def test_it_is_cyclonedx_1_6_by_its_own_validator(written, file, tmp_path):
    assert written["bomFormat"] == "CycloneDX"
    assert written["specVersion"] == "1.6"
    assert validated(file) == "valid"
    # The validator looks into the cards as well.
    written["metadata"]["component"]["modelCard"]["modelParameters"]["approach"]["type"] = "odd"
    # An error is found sooner where there is less to look through.
    written["components"], written["dependencies"] = [], []
    (tmp_path / "odd.json").write_text(json.dumps(written))
    assert validated(tmp_path / "odd.json") != "valid"


def test_the_tuned_model_has_a_card_with_its_data_and_figures(written, file):
    run = Run(file.parent / "run")
    model = written["metadata"]["component"]
    assert (model["type"], model["name"]) == ("machine-learning-model", "affineur-smoke")
    assert model["version"] == run.manifest.key
    card = model["modelCard"]
    assert card["modelParameters"]["modelArchitecture"] == "LlamaForCausalLM"
    assert card["modelParameters"]["approach"] == {"type": "supervised"}
    assert card["modelParameters"]["datasets"] == [{"ref": "data:data"}, {"ref": "data:evaluation"}]
    figures = {
        (figure["type"], figure["slice"]): figure["value"]
        for figure in card["quantitativeAnalysis"]["performanceMetrics"]
    }
    held_out = run.manifest.result(TrainResult).held_out
    assert figures["loss, nats per token", "tuned model; 118 held-out rows"] == "0.001"
    assert figures["loss, nats per token", "base; 118 held-out rows"] == f"{held_out.loss.base:g}"
    assert figures["exact match, share", "tuned model; 60 held-out rows"] == "0.9"
    kl = ("mean KL, nats per token", "q8_0 file, from the merged model; 256 tokens")
    assert figures[kl] == "0.00035"
    assert len(figures) == 8
    files = {part["name"]: part["hashes"] for part in model["components"]}
    made = {**{n: d for record in run.manifest.stages for n, d in record.outputs.items()}}
    assert files[GGUF] == [{"alg": "SHA-256", "content": made[GGUF]}]
    assert set(files) == {
        GGUF,
        "gguf/model-f16.gguf",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "Modelfile",
        "serving.json",
    }
    told = {one["name"]: one["value"] for one in model["properties"]}
    assert told["affineur:recipe:learning_rate"] == "0.003"
    assert told["affineur:manifest:sha256"] == sha256((run.folder / "manifest.json").read_bytes())


def test_base_data_image_libraries_and_llama_cpp_are_parts(written):
    parts = by_ref(written)
    base = parts["base"]
    assert base["type"] == "machine-learning-model"
    assert base["purl"] == f"pkg:huggingface/Qwen/Qwen2.5-1.5B-Instruct@{COMMIT}"
    assert {file["name"]: file["hashes"][0]["content"] for file in base["components"]} == {
        "config.json": sha256(b"config"),
        "model.safetensors": sha256(b"model"),
    }
    data = parts["data:data"]
    assert (data["type"], data["name"]) == ("data", "smoke.jsonl")
    assert data["data"] == [{"name": "smoke.jsonl", "type": "dataset"}]
    assert data["hashes"] == [{"alg": "SHA-256", "content": sha256(b"rows")}]
    assert parts[f"image:{sha256(b'image')}"]["type"] == "container"
    llama_cpp = f"pkg:pypi/llama-cpp-python@{pinned('llama-cpp')['llama-cpp-python']}"
    assert "llama.cpp" in parts[llama_cpp]["description"]
    libraries = {ref: part for ref, part in parts.items() if part["type"] == "library"}
    assert libraries.keys() == {
        f"pkg:pypi/{name}@{version}"
        for lock in ("rtx", "llama-cpp")
        for name, version in pinned(lock).items()
    }
    for lock in ("rtx", "llama-cpp"):
        for entry in requirements(lock_file(lock).read_text("utf-8")):
            part = libraries[f"pkg:pypi/{entry.name}@{entry.version}"]
            assert part["purl"] == part["bom-ref"]
            (archives,) = part["externalReferences"]
            assert {one["content"] for one in archives["hashes"]} == set(entry.sha256)
    needed = {one["ref"]: one.get("dependsOn", []) for one in written["dependencies"]}
    assert set(needed["model"]) == parts.keys() - {"model"}


def test_it_names_no_index_and_no_path_of_this_machine(written, file):
    text = json.dumps(written)
    assert str(file.parent) not in text
    assert str(ROOT) not in text
    # The schema's own address alone.
    assert set(re.findall(r"https?://[^\"/]+", text)) <= {"http://cyclonedx.org"}


def test_the_same_run_has_the_same_bytes_whenever_and_wherever_it_is_asked(file, written, tmp_path):
    again = Run(shutil.copytree(file.parent / "run", tmp_path / "ailleurs, à côté"))
    write_bom(again, tmp_path / "again.json", QUIET)
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()
    assert written["metadata"]["timestamp"] == "2026-01-02T03:04:05+00:00"
    # Another manifest is another bill.
    verification = Verification(
        model="m",
        model_digest="0",
        server="0.34.1",
        passed=True,
        checks=[Check(name="a", passed=True, found="b")],
    )
    again.record_verification(verification)
    assert f"urn:uuid:{bill_of_materials(again).serial_number}" != written["serialNumber"]


def test_a_base_that_is_not_on_the_hub_has_no_address(tmp_path):
    run = make_run(tmp_path)
    base = run.manifest.base.model_copy(update={"source": "smoke", "revision": None})
    run.write_manifest(run.manifest.model_copy(update={"base": base}))
    part = next(part for part in bill_of_materials(run).parts if part.ref == "base")
    assert part.purl is None
    assert part.version == base.digest


def test_a_lock_that_is_another_one_by_now_is_refused(tmp_path):
    run = make_run(tmp_path, locks={"rtx.lock": sha256(b"of then")})
    with pytest.raises(UserError, match=r"rtx.lock: is not the lock that this run was made with"):
        write_bom(run, tmp_path / "bom.json", QUIET)
    assert not (tmp_path / "bom.json").exists()


def test_a_run_without_figures_has_a_bill_all_the_same(tmp_path):
    run = make_run(tmp_path)
    run.write_manifest(run.manifest.model_copy(update={"stages": run.manifest.stages[3:6]}))
    run.write_manifest(run.manifest.model_copy(update={"locks": {}}))
    write_bom(run, tmp_path / "bom.json", QUIET)
    assert validated(tmp_path / "bom.json") == "valid"


def test_as_a_person_asks_for_it(plain_project, file, tmp_path):
    run, target = Run(file.parent / "run"), tmp_path / "bom.json"
    done = invoke(plain_project, "audit", "--run", str(run.folder), "--bom", str(target))
    assert done.returncode == 0, done.stderr
    assert f"bill of materials: {target}" in done.stderr
    assert target.read_bytes() == file.read_bytes()
