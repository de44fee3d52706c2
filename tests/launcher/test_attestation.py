"""An attestation says of each file what it is; whatever is changed afterwards fails it, by name."""

import base64
import json
import os
import pty
import random
import shutil
import subprocess
import sys

import pytest

from contract.digest import digest_of_file
from contract.errors import ExitCode, UserError
from contract.manifest import Verification
from launcher.attest import attestation, key_files
from launcher.attest.attestation import attest, make_key, verify
from launcher.attest.exchange import AttestationFailed
from launcher.attest.statement import first_difference, statement
from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.project import ROOT
from launcher.runtime.environment import ensure_environment
from tests.conftest import clean_environment, invoke
from tests.hand_made_run import GGUF, make_run, sha256

QUIET = Display(quiet=True)
SUBJECTS = [
    "Modelfile",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    GGUF,
    "serving.json",
]
# Each byte of an envelope in turn, with one of its bits flipped; and what takes it all the same.
FLIP = """
import random, sys
from pathlib import Path
from contract.errors import UserError
from launcher.attest.exchange import CheckEnvelope
from launcher.attest.isolated.check_envelope import check

envelope, key = Path(sys.argv[1]), Path(sys.argv[2])
whole = envelope.read_bytes()
drawn = random.Random(16)
check(CheckEnvelope(name="e", envelope=whole.decode(), key=key))
taken = []
for place in range(len(whole)):
    bit = drawn.randrange(8)
    flipped = bytearray(whole)
    flipped[place] ^= 1 << bit
    try:
        text = flipped.decode()
        check(CheckEnvelope(name="e", envelope=text, key=key))
        taken.append((place, bit))
    except UnicodeDecodeError:
        # The launcher refuses it before.
        pass
    except UserError as error:
        assert error.exit_code == 3 and str(error).startswith("e: "), error
print(len(whole), taken)
"""
# in-toto's own classes, and those of SLSA's predicate.
PUBLIC = """
import json, sys
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1 import statement_pb2

payload = sys.stdin.read()
read = Statement.copy_from_pb(json_format.Parse(payload, statement_pb2.Statement()))
read.validate()
predicate = json.loads(payload)["predicate"]
provenance = json_format.ParseDict(predicate, provenance_pb2.Provenance())
for one in provenance.build_definition.resolved_dependencies:
    ResourceDescriptor.copy_from_pb(one).validate()
print(read.pb.predicate_type, len(read.pb.subject), provenance.run_details.builder.id)
"""


def in_environment(code, *words, text=""):
    """A piece of Python in the environment `attest`."""
    python = ensure_environment("attest", ["attest"], QUIET)
    done = subprocess.run(
        [str(python), "-c", code, *map(str, words)],
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A key pair, and another one: name -> the private key's path."""
    folder = tmp_path_factory.mktemp("clés")
    made = {name: folder / f"{name}.key" for name in ("own", "other")}
    for private in made.values():
        make_key(private, QUIET)
    return made


@pytest.fixture(scope="module")
def attested_once(tmp_path_factory, keys):
    """A run that was attested."""
    run = make_run(tmp_path_factory.mktemp("course") / "d'été")
    attest(run, keys["own"], None, QUIET)
    return run


@pytest.fixture
def attested(attested_once, tmp_path):
    """A copy of it, to be spoiled."""
    return Run(shutil.copytree(attested_once.folder, tmp_path / "run"))


def public(private):
    return private.with_name(f"{private.name}.pub")


def envelope_of(run):
    return run.folder / attestation.ENVELOPE


def payload(run):
    return base64.b64decode(json.loads(envelope_of(run).read_text())["payload"]).decode()


def failure(run, key):
    with pytest.raises(AttestationFailed) as caught:
        verify(str(run.folder), public(key), QUIET)
    return str(caught.value)


def test_it_says_what_the_run_made_from_what_and_how(attested):
    told = json.loads(payload(attested))
    manifest = attested.manifest
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["predicateType"] == "https://slsa.dev/provenance/v1"
    assert [one["name"] for one in told["subject"]] == SUBJECTS
    for one in told["subject"]:
        assert one["digest"] == {"sha256": digest_of_file(attested.folder / one["name"])}
    definition = told["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["recipe"] == json.loads(
        manifest.recipe.model_dump_json()
    )
    dependencies = {one["name"]: one for one in definition["resolvedDependencies"]}
    assert dependencies["base/model.safetensors"]["digest"] == {"sha256": sha256(b"model")}
    assert dependencies["base"]["uri"].startswith("pkg:huggingface/Qwen/Qwen2.5-1.5B-Instruct@989")
    assert dependencies["data/data"]["digest"] == {"sha256": sha256(b"rows")}
    assert dependencies["docker/locks/rtx.lock"]["digest"] == {"sha256": manifest.locks["rtx.lock"]}
    assert "code/train" in dependencies
    details = told["predicate"]["runDetails"]
    assert details["metadata"] == {
        "invocationId": manifest.key,
        "startedOn": "2026-01-02T03:00:00Z",
        "finishedOn": "2026-01-02T03:04:05Z",
    }
    assert {one["name"]: one["digest"]["sha256"] for one in details["byproducts"]} == {
        name: digest_of_file(attested.folder / name) for name in ("manifest.json", "model.sig")
    }


def test_an_image_is_a_dependency_by_digest(tmp_path):
    built = statement(make_run(tmp_path, image=True).manifest, SUBJECTS, {})
    (image,) = (
        one for one in built.predicate.build_definition.resolved_dependencies if one.name == "image"
    )
    assert image.digest == {"sha256": sha256(b"image")}


def test_in_totos_own_classes_take_it(attested):
    told = in_environment(PUBLIC, text=payload(attested)).split()
    assert told == ["https://slsa.dev/provenance/v1", str(len(SUBJECTS)), "urn:affineur:launcher"]


def test_it_verifies_by_the_public_key_from_wherever_it_lies(attested, keys, tmp_path):
    key = public(keys["own"])
    for target in (attested.folder, attested.folder / "manifest.json", envelope_of(attested)):
        found = verify(str(target), key, QUIET)
        assert (found.run.folder, found.subjects) == (attested.folder, len(SUBJECTS))
        assert found.model_signature
    # Beside a copy of what is handed on, as in a package.
    there = tmp_path / "there"
    there.mkdir()
    for name in [*SUBJECTS, "manifest.json", "model.sig", str(attestation.ENVELOPE)]:
        (there / name).parent.mkdir(exist_ok=True)
        shutil.copy(attested.folder / name, there / name)
    assert verify(str(there), key, QUIET).run.folder == there
    # What was made beside it since is nobody's concern.
    (attested.folder / "evaluation.json").write_text("{}")
    assert verify(str(attested.folder), key, QUIET).model_signature


def test_an_envelope_that_lies_elsewhere_finds_its_run(tmp_path, keys, monkeypatch):
    models = tmp_path / "models"
    monkeypatch.setattr("launcher.pipeline.finished_run.MODELS", models)
    run = make_run(models / "affineur-smoke" / sha256(b"train")[:12])
    away = tmp_path / "away"
    away.mkdir()
    made = attest(run, keys["own"], away / "p.jsonl", QUIET)
    assert made.model_signature == away / "model.sig"
    assert verify(str(away / "p.jsonl"), public(keys["own"]), QUIET).run.folder == run.folder
    shutil.rmtree(models)
    with pytest.raises(UserError, match="affineur-smoke has no finished run here"):
        verify(str(away / "p.jsonl"), public(keys["own"]), QUIET)


def test_another_key_is_said_to_be_another_one(attested, keys):
    said = failure(attested, keys["other"])
    assert "is signed by the key " in said
    assert "other.key.pub is the key " in said
    assert "public key of the one who signed it" in said


def test_any_bit_of_any_byte_of_the_envelope_fails_it(attested, keys):
    told = in_environment(FLIP, envelope_of(attested), public(keys["own"]))
    length, taken = told.split(maxsplit=1)
    assert int(length) == envelope_of(attested).stat().st_size > 4000
    assert taken.strip() == "[]"


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: json.dumps(json.loads(text), indent=1),
        lambda text: json.dumps({**json.loads(text), "more": 1}),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace('"payload":"', '"payload":"!'),
        lambda text: text.replace('"sig":"', '"sig":"-'),
        lambda text: text.replace('"payload":', '"payload":"","payload":'),
    ],
)
def test_an_envelope_that_says_the_same_in_another_writing_is_refused(attested, keys, rewrite):
    """Its signature fits: readers of JSON and base64 pass over what was changed."""
    whole = envelope_of(attested).read_text()
    envelope_of(attested).write_text(rewrite(whole))
    assert envelope_of(attested).read_text() != whole
    assert "is no envelope as ./invoke attest writes it" in failure(attested, keys["own"])


def test_a_models_signature_in_another_writing_is_refused(attested, keys):
    signature = attested.folder / "model.sig"
    signature.write_text(json.dumps(json.loads(signature.read_text()), indent=3))
    assert "is not the model's signature that the statement names" in failure(attested, keys["own"])


@pytest.mark.parametrize(
    "name", ["manifest.json", "model.sig", str(attestation.ENVELOPE), GGUF, "Modelfile"]
)
@pytest.mark.parametrize("seed", range(2))
def test_a_flipped_bit_of_a_file_fails_it_and_names_the_file(attested, keys, name, seed):
    path = attested.folder / name
    drawn = random.Random(f"{name} {seed}")
    content = bytearray(path.read_bytes())
    content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
    path.write_bytes(content)
    said = failure(attested, keys["own"])
    assert path.name in said.partition(": ")[0], said


def test_a_file_that_is_gone_is_named_with_every_other_one(attested, keys):
    (attested.folder / GGUF).unlink()
    (attested.folder / "Modelfile").write_text("FROM ./other.gguf\n")
    said = failure(attested, keys["own"]).splitlines()
    assert len(said) == 2
    assert said[0].endswith("Modelfile: is not the file that was signed")
    assert said[1].endswith(f"{GGUF}: does not exist, and was signed")


def test_a_manifest_that_says_something_else_is_told_by_what(attested, keys):
    manifest = attested.manifest
    recipe = manifest.recipe.model_copy(update={"epochs": 4.0})
    attested.write_manifest(manifest.model_copy(update={"recipe": recipe}))
    said = failure(attested, keys["own"])
    assert "externalParameters.recipe.epochs is 3.0 in the statement, 4.0 here" in said
    # A later verification is part of the manifest, and was not signed.
    verification = Verification(
        model="m", model_digest="0", server="0.34.1", passed=True, checks=[]
    )
    attested.write_manifest(manifest.model_copy(update={"verification": verification}))
    said = failure(attested, keys["own"])
    assert "the last verification" in said
    assert "attest it again" in said
    attest(attested, keys["own"], None, QUIET)
    assert verify(str(attested.folder), public(keys["own"]), QUIET).subjects == len(SUBJECTS)


def test_what_another_statement_says_in_the_same_form_is_no_statement_of_ours(attested, keys):
    """Signed by the same key: a signature alone does not make it one."""
    told = json.loads(payload(attested))
    told["predicate"]["runDetails"]["builder"]["id"] = "urn:somebody:else"
    resign(attested, json.dumps(told, sort_keys=True, separators=(",", ":")), keys["own"])
    said = failure(attested, keys["own"])
    assert 'builder.id is "urn:somebody:else" in the statement' in said
    told["predicateType"] = "https://example.org/other"
    resign(attested, json.dumps(told), keys["own"])
    assert "is no statement of ./invoke attest (predicateType: " in failure(attested, keys["own"])


def test_a_models_signature_by_another_key_does_not_fit(attested, keys, tmp_path):
    """The statement names it, and is signed by the right key."""
    other = attest(attested, keys["other"], tmp_path / "other.jsonl", QUIET)
    shutil.copy(other.model_signature, attested.folder / "model.sig")
    told = json.loads(payload(attested))
    (named,) = (
        one for one in told["predicate"]["runDetails"]["byproducts"] if one["name"] == "model.sig"
    )
    named["digest"]["sha256"] = digest_of_file(attested.folder / "model.sig")
    resign(attested, json.dumps(told, sort_keys=True, separators=(",", ":")), keys["own"])
    assert "does not fit by OpenSSF model signing: Key mismatch" in failure(attested, keys["own"])


def resign(run, text, key):
    signed = in_environment(
        "import sys\n"
        "from pathlib import Path\n"
        "from launcher.attest.isolated import envelopes, keys\n"
        "signer = keys.signer(Path(sys.argv[1]), None)\n"
        "print(envelopes.signed(sys.stdin.read().encode(), signer), end='')",
        key,
        text=text,
    )
    envelope_of(run).write_text(signed)


def test_model_signings_own_command_verifies_the_model(attested, keys):
    python = ensure_environment("attest", ["attest"], QUIET)
    command = [str(python), "-m", "model_signing", "verify", "key", str(attested.folder)]
    command += ["--signature", str(attested.folder / "model.sig"), "--ignore_unsigned_files"]
    command += ["--public_key", str(public(keys["own"]))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Verification succeeded" in done.stdout
    path = attested.folder / GGUF
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    path.write_bytes(b"quantized weights")
    command[-1] = str(public(keys["other"]))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_a_file_that_the_run_did_not_make_is_not_attested(attested, keys):
    before = envelope_of(attested).read_bytes()
    (attested.folder / GGUF).write_bytes(b"another")
    with pytest.raises(UserError, match="is not the file that the run created"):
        attest(attested, keys["own"], None, QUIET)
    assert envelope_of(attested).read_bytes() == before


def test_an_ed25519_key_signs_the_statement_alone(tmp_path):
    in_environment(
        "import sys\n"
        "from pathlib import Path\n"
        "from cryptography.hazmat.primitives import serialization as form\n"
        "from cryptography.hazmat.primitives.asymmetric import ed25519\n"
        "key = ed25519.Ed25519PrivateKey.generate()\n"
        "pem, none = form.Encoding.PEM, form.NoEncryption()\n"
        "own, public = form.PrivateFormat.PKCS8, form.PublicFormat.SubjectPublicKeyInfo\n"
        "Path(sys.argv[1]).write_bytes(key.private_bytes(pem, own, none))\n"
        "Path(sys.argv[1] + '.pub').write_bytes(key.public_key().public_bytes(pem, public))\n",
        tmp_path / "ed.key",
    )
    run = make_run(tmp_path / "run")
    assert attest(run, tmp_path / "ed.key", None, QUIET).model_signature is None
    assert not (run.folder / "model.sig").exists()
    found = verify(str(run.folder), tmp_path / "ed.key.pub", QUIET)
    assert not found.model_signature
    path = run.folder / GGUF
    path.write_bytes(path.read_bytes() + b"!")
    assert "is not the file that was signed" in failure(run, tmp_path / "ed.key")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no key", "is no private key in PEM form"),
        (b"", "is no private key in PEM form"),
        (None, "there is no file"),
    ],
)
def test_what_is_no_key_is_refused_in_a_sentence(tmp_path, content, said):
    key = tmp_path / "k"
    if content is not None:
        key.write_bytes(content)
    run = make_run(tmp_path / "run")
    with pytest.raises(UserError, match=said) as caught:
        attest(run, key, None, QUIET)
    assert caught.value.exit_code == ExitCode.USER_ERROR
    assert not envelope_of(run).exists()


def test_the_two_halves_of_a_key_are_not_mixed_up(attested, keys):
    with pytest.raises(UserError, match=r"is the private key. Give the public one"):
        verify(str(attested.folder), keys["own"], QUIET)
    with pytest.raises(UserError, match="is no private key in PEM form"):
        attest(attested, public(keys["own"]), None, QUIET)


def test_a_key_of_another_kind_is_refused(tmp_path):
    in_environment(
        "import sys\n"
        "from pathlib import Path\n"
        "from cryptography.hazmat.primitives import serialization as form\n"
        "from cryptography.hazmat.primitives.asymmetric import rsa\n"
        "key = rsa.generate_private_key(65537, 2048)\n"
        "pem, none = form.Encoding.PEM, form.NoEncryption()\n"
        "Path(sys.argv[1]).write_bytes(key.private_bytes(pem, form.PrivateFormat.PKCS8, none))\n",
        tmp_path / "rsa.key",
    )
    with pytest.raises(UserError, match="is a key of another kind: Ed25519 and ECDSA"):
        attest(make_run(tmp_path / "run"), tmp_path / "rsa.key", None, QUIET)


def test_a_new_key_is_for_its_owner_alone_and_never_written_over_another(tmp_path, monkeypatch):
    monkeypatch.delenv(key_files.PASSPHRASE, raising=False)
    private = tmp_path / "k"
    made, keyid = make_key(private, QUIET)
    assert made == tmp_path / "k.pub"
    assert len(keyid) == 64
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    before = private.read_bytes()
    for there in (private, made):
        with pytest.raises(UserError, match="already exists"):
            make_key(private, QUIET)
        there.unlink()
    private.write_bytes(before)
    (tmp_path / "k.pub").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="already exists"):
        make_key(private, QUIET)
    assert private.read_bytes() == before
    with pytest.raises(UserError, match="is no folder"):
        make_key(tmp_path / "no" / "k", QUIET)


def test_a_passphrase_comes_from_the_environment_and_stands_in_no_command(tmp_path, monkeypatch):
    monkeypatch.setenv(key_files.PASSPHRASE, "mot de passe é")
    private = tmp_path / "k"
    make_key(private, QUIET)
    assert b"ENCRYPTED" in private.read_bytes()
    run = make_run(tmp_path / "run")
    seen = []

    def run_and_see(command, **options):
        seen.append((command, options["env"]))
        return ran(command, **options)

    ran = subprocess.run
    monkeypatch.setattr("launcher.attest.environment.subprocess.run", run_and_see)
    attest(run, private, None, QUIET)
    assert verify(str(run.folder), tmp_path / "k.pub", QUIET).model_signature
    assert len(seen) == 4
    assert "mot de passe" not in str(seen)
    monkeypatch.setenv(key_files.PASSPHRASE, "another")
    with pytest.raises(UserError, match="does not open with this passphrase"):
        attest(run, private, None, QUIET)
    monkeypatch.delenv(key_files.PASSPHRASE)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115
    with pytest.raises(UserError, match="is encrypted, and there is no terminal"):
        attest(run, private, None, QUIET)


def test_a_passphrase_is_asked_for_on_a_terminal_and_not_shown(tmp_path, plain_project):
    """A real terminal: what is typed for the key, twice, is not echoed."""
    private = tmp_path / "k"
    shown = typed(plain_project, ["make-key", str(private)], [b"mot secret\n", b"mot secret\n"])
    assert b"Passphrase for" in shown
    assert b"The same again" in shown
    assert b"mot secret" not in shown
    assert b"ENCRYPTED" in private.read_bytes()
    run = make_run(tmp_path / "run")
    shown = typed(
        plain_project, ["attest", str(run.folder), "--key", str(private)], [b"mot secret\n"]
    )
    assert b"mot secret" not in shown
    assert envelope_of(run).is_file()


def typed(project, words, answers):
    """What `./invoke words...` shows on a terminal where a person types an answer a question."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [str(project / "invoke"), *words],
        cwd=project,
        env=clean_environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: take_terminal(),
    )
    os.close(terminal)
    shown, left = b"", list(answers)
    while True:
        try:
            piece = os.read(main, 4096)
        except OSError:
            break
        shown += piece
        if left and shown.rstrip(b" ").endswith(b":"):
            os.write(main, left.pop(0))
    os.close(main)
    assert process.wait() == 0, shown
    assert not left, shown
    return shown


def take_terminal():
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_where_two_values_part_is_told_by_its_path():
    assert first_difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}) == ""
    told = first_difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]})
    assert told == "a[1].b is 2 in the statement, 3 here"
    assert first_difference({"a": 1}, {}) == "a is 1 in the statement, null here"
    assert first_difference({"a": [1]}, {"a": [1, 2]}).startswith("a is [1] in the statement")
    assert first_difference(1, True) != ""


def test_as_a_person_asks_for_it(plain_project, tmp_path):
    private = tmp_path / "à moi.key"
    done = invoke(plain_project, "make-key", str(private))
    assert done.returncode == 0, done.stderr
    key_line = done.stdout.split("  ")
    assert key_line[0] == f"{private}.pub"
    run = make_run(tmp_path / "run")
    refused = invoke(plain_project, "verify-attestation", str(run.folder), "--key", key_line[0])
    assert refused.returncode == 2
    assert "does not exist. Attest the run first" in refused.stderr
    done = invoke(plain_project, "attest", str(run.folder), "--key", str(private))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(run.folder / name) for name in ("provenance.intoto.jsonl", "model.sig")
    ]
    words = ("verify-attestation", str(run.folder), "--key", key_line[0])
    done = invoke(plain_project, *words)
    assert done.returncode == 0, done.stderr
    assert f"signed by the key {key_line[1][:12]}" in done.stdout
    assert f"the manifest and {len(SUBJECTS)} files are as they were signed" in done.stdout
    assert "OpenSSF model signing: the model's signature fits" in done.stdout
    there = invoke(
        plain_project, "attest", str(run.folder), "--key", str(private), "--output", str(private)
    )
    assert there.returncode == 2
    assert "already exists" in there.stderr
    (run.folder / GGUF).write_bytes(b"quantized weightt")
    failed = invoke(plain_project, *words)
    assert (failed.returncode, failed.stdout) == (3, "")
    assert failed.stderr.startswith(f"affineur: {run.folder / GGUF}: is not the file that was")
    assert failed.stderr.count("\n") == 1


def test_a_smoke_run_is_attested_and_verified(smoke_run, keys, tmp_path):
    """What a real run left is in the form that all of it reads."""
    run = Run(shutil.copytree(smoke_run.folder, tmp_path / "run"))
    attest(run, keys["own"], None, QUIET)
    found = verify(str(run.folder), public(keys["own"]), QUIET)
    assert found.subjects >= 5
    in_environment(PUBLIC, text=payload(run))
    done = invoke(
        smoke_run.project, "audit", "--run", str(run.folder), "--bom", str(tmp_path / "bom.json")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sys.getsizeof((tmp_path / "bom.json").read_bytes()) > 10_000
