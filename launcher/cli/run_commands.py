"""The launcher's calls for finished runs, one a task: look at them, hand them on, rebuild them."""

from __future__ import annotations

import sys

from contract import paths
from contract.errors import ExitCode, UserError
from launcher.attest import attestation
from launcher.attest.audit import inputs_of_run
from launcher.attest.bill_of_materials import write_bom
from launcher.cli import audit_report, comparison_report, reproduction_report, runs_report
from launcher.cli import clean as clean_runs
from launcher.cli.chat import HELP, Chat, asked_models, longest_answer, questions
from launcher.cli.json_output import print_json
from launcher.display import Display, terminal
from launcher.interruption import ctrl_c_ignored
from launcher.pipeline.finished_run import Run, canonical_name
from launcher.pipeline.oci_artifact import default_layout, write_layout
from launcher.pipeline.oci_push import Reference, push_layout
from launcher.pipeline.package import check_target, default_package, write_package
from launcher.project import shown, user_path
from launcher.promote.promoted_runs import PromotedRun, promoted_runs
from launcher.reproduce.reproduction import ReproductionRequest, reproduction_folder
from launcher.reproduce.reproduction import reproduce as rebuild
from launcher.runs import comparison, run_summary
from launcher.runtime.engine_choice import choose_engine
from launcher.serving.served_bases import ServedBases
from launcher.serving.server_choice import choose_server, demand_server


def runs(model: str, *, as_json: bool) -> None:
    """Print every run here, or those of one model."""
    promoted: list[PromotedRun] = []
    try:
        promoted = promoted_runs()
    except UserError as error:
        # A list is no worse for it, and says what is missing.
        Display().note(f"promotions are not known: {error}")
    found = run_summary.summaries(promoted, canonical_name(model))
    if as_json:
        print_json([run.model_dump(mode="json") for run in found])
    elif found:
        runs_report.show(found, terminal())
    else:
        print(runs_report.NO_RUNS)


def compare(a: str, b: str, *, as_json: bool, output: str, language: str) -> None:
    """Print what differs between two runs: how they were made, and what came of it.

    Args:
        output: file or folder that gets it as an HTML page as well; empty for neither.
    """
    if output:
        # Templates take a while to import.
        from launcher.report.comparison_document import compare_on_page

        found, file = compare_on_page(a, b, output=output, language=language)
        Display().note(f"comparison: {shown(file)}")
    elif language != "en":
        raise UserError.one("--language", "is that of the page", "Name its file: --output FILE.")
    else:
        found = comparison.compare(Run.named(a), Run.named(b))
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        comparison_report.show(found, terminal())


def clean(model: str, *, yes: bool) -> None:
    """Print which runs can go; remove them where a person says so."""
    clean_runs.clean(canonical_name(model), yes=yes, console=terminal())


def chat(model: str, *, beside: str, ollama: str, engine: str) -> None:
    """Ask a served model what a person types, and another one beside it."""
    model = canonical_name(model)
    display = Display()
    with (
        demand_server(ollama, display).running() as server,
        asked_models(model, beside, server, lambda: choose_engine(engine, "", display)) as models,
    ):
        longest = longest_answer(model)
        if not sys.stdin.isatty():
            Chat(models, terminal(), max_new_tokens=longest, by_person=False).run(questions())
            return
        display.note(HELP)
        with ctrl_c_ignored():
            Chat(models, terminal(), max_new_tokens=longest, by_person=True).run(questions())


def package(model: str, *, run: str, output: str, oci: bool, push: str) -> None:
    """Write one file, or an OCI artifact, with a finished run's model and adapter, and print its
    path; or push it, and print its reference with its digest.
    """
    found = Run.find(canonical_name(model), run)
    display = Display()
    # What can be wrong about it is said before anything is copied.
    reference = Reference.parse(push) if push else None
    default = default_layout(found) if oci or push else default_package(found)
    target = default
    if output:
        target = user_path(output, "--output")
        target = target / default.name if target.is_dir() else target
        check_target(target)
    if oci or push:
        digest = write_layout(found, target, display)
        if reference is not None:
            push_layout(target, reference, display)
        print(f"{reference}@{digest}" if reference is not None else shown(target))
        return
    write_package(found, target, display)
    print(shown(target))
    display.note(
        f"where Ollama runs: unzip {target.name}, and in its folder: "
        f"ollama create {found.recipe.output_model_name} -f {paths.MODELFILE}"
    )


def report_of(run: str, *, output: str, language: str) -> None:
    """Write a finished run's report as one HTML file, and print its path."""
    # Templates take a while to import.
    from launcher.report.document import report_run

    print(shown(report_run(run, output=output, language=language)))


def reproduce(name: str, request: ReproductionRequest, *, engine: str, json: str) -> None:
    """Rebuild a run from its manifest, print how each file compares, and exit 3 where one differs.

    Args:
        json: where the comparison is written beside the rebuilt run's folder; empty for nowhere.
    """
    run = Run.named(name)
    target = user_path(json, "--json") if json else None
    if target is not None and (target.is_dir() or not target.parent.is_dir()):
        raise UserError.one("--json", f"{target} cannot be a file", "Name a file in a folder.")
    display = Display()
    reproduction = rebuild(
        run,
        request,
        choose_engine(engine, "", display),
        display,
        server=ServedBases.of(choose_server("auto", display), "auto"),
    )
    if target is not None:
        reproduction.write(target)
    reproduction_report.show(reproduction, terminal())
    display.note(f"rebuilt in {shown(request.into or reproduction_folder(run.manifest))}")
    if not reproduction.identical:
        raise SystemExit(int(ExitCode.DIFFERS))


def audit_run(run: str, *, bom: str, as_json: bool) -> None:
    """Print what of a finished run's inputs no digest pins, and write its bill of materials."""
    display = Display(quiet=as_json)
    found = Run.named(run)
    audited = inputs_of_run(found)
    if bom:
        target = user_path(bom, "--bom")
        write_bom(found, target, display)
        display.note(f"bill of materials: {shown(target)}")
    audit_report.show(audited, display, as_json=as_json)


def make_key(file: str) -> None:
    """Make a key pair, and print the public key's path and id."""
    public, keyid = attestation.make_key(user_path(file, "FILE"), Display())
    print(f"{public}  {keyid}")


def attest(run: str, *, key: str, output: str) -> None:
    """Sign a run's statement and its model, and print what was written."""
    display = Display()
    target = user_path(output, "--output") if output else None
    made = attestation.attest(Run.named(run), user_path(key, "--key"), target, display)
    print(shown(made.envelope))
    if made.model_signature is not None:
        print(shown(made.model_signature))
    else:
        display.note("OpenSSF's form takes ECDSA keys alone: the model has no signature of its own")
    display.note(f"{made.subjects} files, signed by the key {made.keyid[:12]}")


def verify_attestation(run: str, *, key: str) -> None:
    """Check an attestation, and print what it is of; exit 3 where a check fails."""
    found = attestation.verify(run, user_path(key, "--key"), Display())
    print(
        f"{found.run.recipe.output_model_name} {found.run.name}: signed by the key "
        f"{found.keyid[:12]}; the manifest and {found.subjects} files are as they were signed"
    )
    if found.model_signature:
        print("OpenSSF model signing: the model's signature fits")
