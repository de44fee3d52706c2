"""Attest a run, and verify it: a signed statement of what was made, from what and how.

The statement covers every byte that it is checked by: the served files and the adapter are its
subjects, the manifest and OpenSSF's signature of the model are named by their digests.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from contract import paths
from contract.atomic_write import atomic_write
from contract.digest import digest_of_file
from contract.errors import Problem, Problems, UserError
from contract.manifest import Manifest
from launcher.attest.environment import ask
from launcher.attest.exchange import (
    AttestationFailed,
    CheckEnvelope,
    CheckModel,
    EnvelopeChecked,
    KeyMade,
    MakeKey,
    ModelChecked,
    ModelSigned,
    Sign,
    Signed,
    SignModel,
)
from launcher.attest.key_files import check_key, new_passphrase, passphrase_of
from launcher.attest.statement import Statement, first_difference, statement
from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.project import check_new, shown, user_path

# in-toto's ending for envelopes, a line each.
ENVELOPE = Path("provenance.intoto.jsonl")
# OpenSSF's name for its signatures.
MODEL_SIGNATURE = Path("model.sig")
_AGAIN = "If that is meant, attest it again: ./invoke attest RUN --key FILE."


@dataclass(frozen=True)
class Attestation:
    """What was written; `model_signature` is None where the key is not one for it."""

    envelope: Path
    model_signature: Path | None
    keyid: str
    subjects: int


@dataclass(frozen=True)
class Verified:
    """What was found to be as it was signed."""

    run: Run
    keyid: str
    subjects: int
    model_signature: bool


def make_key(private: Path, display: Display) -> tuple[Path, str]:
    """Make a key pair: the private key at a path, for its owner alone, the public one beside it.

    Returns:
        The public key's path, and the key's id.

    Raises:
        UserError: one of the files exists, or its folder does not.
    """
    public = private.with_name(f"{private.name}.pub")
    for path in (private, public):
        check_new(path, "FILE", "Choose another name.")
    request = MakeKey(
        private=private.resolve(), public=public.resolve(), passphrase=new_passphrase(private)
    )
    return public, ask("keys", request, KeyMade, display).keyid


def attest(run: Run, key: Path, output: Path | None, display: Display) -> Attestation:
    """Sign a run's statement, and its model's files where the key is one for that.

    Args:
        output: the envelope's path; None for the run's folder. The model's signature lies beside
            it.

    Raises:
        UserError: the key cannot be used, or a file is not what the run made.
    """
    passphrase = passphrase_of(key, display)
    subjects = _handed_on(run)
    run.check_made(subjects)
    envelope = output or run.folder / ENVELOPE
    signature = envelope.parent / MODEL_SIGNATURE
    if output is not None:
        for path in (output, signature):
            check_new(path, "--output", "Delete it, or move it away.")
    byproducts = {str(paths.MANIFEST): digest_of_file(run.folder / paths.MANIFEST)}
    sign_model = SignModel(
        folder=run.folder.resolve(),
        files=subjects,
        signature=signature.resolve(),
        key=key.resolve(),
        passphrase=passphrase,
    )
    signed_model = ask("sign_model", sign_model, ModelSigned, display).signed
    if signed_model:
        byproducts[str(MODEL_SIGNATURE)] = digest_of_file(signature)
    text = statement(run.manifest, subjects, byproducts).text()
    sign = Sign(statement=text, key=key.resolve(), passphrase=passphrase)
    signed = ask("sign_statement", sign, Signed, display)
    atomic_write(envelope, signed.envelope)
    return Attestation(envelope, signature if signed_model else None, signed.keyid, len(subjects))


def verify(target: str, key: Path, display: Display) -> Verified:
    """See that an attestation is as it was signed, and that the run is as it says. Offline.

    Args:
        target: an envelope, or a run as `Run.named` takes it.
        key: the public key of whom a person trusts.

    Raises:
        UserError: there is no such file or run.
        AttestationFailed: a check failed: which, and where.
    """
    check_key(key, "--key")
    envelope, run = _find(target)
    check = CheckEnvelope(name=shown(envelope), envelope=_text(envelope), key=key.resolve())
    checked = ask("check_envelope", check, EnvelopeChecked, display)
    signed = _statement(envelope, checked.statement)
    run = run or _run_of(signed)
    _check_manifest(signed, run)
    _check_subjects(signed, run)
    has_signature = str(MODEL_SIGNATURE) in _byproducts(signed)
    if has_signature:
        _check_model(signed, run, envelope.parent / MODEL_SIGNATURE, key, display)
    return Verified(run, checked.keyid, len(signed.subject), has_signature)


def _handed_on(run: Run) -> list[str]:
    """What goes to those who use the model: the served files and their settings, the adapter."""
    served = {Path(name) for name in (run.serving.gguf, run.serving.adapter) if name is not None}
    return run.outputs_below(paths.ADAPTER, paths.MODELFILE, paths.SERVING, *served)


def _find(target: str) -> tuple[Path, Run | None]:
    """The envelope, and the run in whose folder it is, as far as that is known before it is read.

    Raises:
        UserError: there is no such file or run, or the run was not attested.
    """
    path = user_path(target, "FILE_OR_RUN")
    if path.is_file() and path.name != paths.MANIFEST.name:
        beside = (path.resolve().parent / paths.MANIFEST).is_file()
        return path.resolve(), Run(path.resolve().parent) if beside else None
    run = Run.named(target)
    envelope = run.folder / ENVELOPE
    if not envelope.is_file():
        raise UserError.one(
            shown(envelope),
            "does not exist",
            "Attest the run first (./invoke attest RUN --key FILE), or give the envelope's path.",
        )
    return envelope, run


def _text(envelope: Path) -> str:
    try:
        return envelope.read_bytes().decode()
    except UnicodeDecodeError:
        raise AttestationFailed.one(
            shown(envelope), "is no text: it is damaged, or is no envelope"
        ) from None


def _statement(envelope: Path, text: str) -> Statement:
    try:
        return Statement.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AttestationFailed.one(
            shown(envelope),
            f"was signed, and is no statement of ./invoke attest ({where}: {first['msg'].lower()})",
        ) from None


def _run_of(signed: Statement) -> Run:
    """The run here that a statement is of, where its envelope lies elsewhere."""
    definition = signed.predicate.build_definition
    recipe = definition.external_parameters.get("recipe")
    model = recipe.get("output_model_name") if isinstance(recipe, dict) else None
    key = signed.predicate.run_details.metadata.invocation_id
    return Run.find(str(model), key[:12], flags=("FILE_OR_RUN", "FILE_OR_RUN"))


def _byproducts(signed: Statement) -> dict[str, str]:
    described = signed.predicate.run_details.byproducts
    return {one.name: (one.digest or {}).get("sha256", "") for one in described}


def _check_manifest(signed: Statement, run: Run) -> None:
    """See that the manifest is the one that was signed, and says what the statement says."""
    path = run.folder / paths.MANIFEST
    byproducts = _byproducts(signed)
    differs = None
    try:
        built = statement(
            Manifest.read(path), [subject.name for subject in signed.subject], byproducts
        )
        if built.text() != signed.text():
            differs = first_difference(signed.plain(), built.plain())
    except (UserError, ValueError, KeyError):
        differs = "it cannot be compared any more"
    if differs is not None:
        raise AttestationFailed.one(
            shown(path), f"is not the manifest that was signed: {differs}", _AGAIN
        )
    if digest_of_file(path) != byproducts.get(str(paths.MANIFEST)):
        raise AttestationFailed.one(
            shown(path),
            "is not the manifest that was signed: it differs in what the statement does not repeat "
            "(results of stages, the last verification)",
            _AGAIN,
        )


def _check_subjects(signed: Statement, run: Run) -> None:
    """Read every file that was signed, to the last byte."""
    problems = Problems()
    for subject in signed.subject:
        path = run.folder / subject.name
        if not path.is_file():
            problems.append(Problem(where=shown(path), what="does not exist, and was signed"))
        elif digest_of_file(path) != (subject.digest or {}).get("sha256"):
            problems.append(Problem(where=shown(path), what="is not the file that was signed"))
    if problems:
        raise AttestationFailed(problems, problems.more)


def _check_model(signed: Statement, run: Run, signature: Path, key: Path, display: Display) -> None:
    if not signature.is_file():
        raise AttestationFailed.one(shown(signature), "does not exist, and the statement names it")
    if digest_of_file(signature) != _byproducts(signed)[str(MODEL_SIGNATURE)]:
        raise AttestationFailed.one(
            shown(signature), "is not the model's signature that the statement names"
        )
    check = CheckModel(
        folder=run.folder.resolve(), signature=signature.resolve(), key=key.resolve()
    )
    ask("check_model", check, ModelChecked, display)
