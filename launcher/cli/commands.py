"""The launcher's calls, one a task: resolve the recipe, do the work, show the outcome."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from contract import paths
from contract.atomic_write import atomic_write
from contract.errors import ExitCode, UserError
from contract.recipe import Recipe
from launcher.attest import attestation
from launcher.attest.audit import inputs_of_recipe, inputs_of_run
from launcher.attest.bill_of_materials import write_bom
from launcher.cli import (
    audit_report,
    comparison_report,
    data_report,
    plan_report,
    reproduction_report,
    runs_report,
    summary,
)
from launcher.cli import clean as clean_runs
from launcher.cli.chat import HELP, Chat, asked_models, longest_answer, questions
from launcher.cli.json_output import print_json
from launcher.configuration import profile_values, resolve
from launcher.display import Display, terminal
from launcher.evaluate import report
from launcher.evaluate.evaluation import EvaluationRequest, Evaluator
from launcher.evaluate.record import Evaluation, EvaluationAttempt
from launcher.gate import card
from launcher.gate.decision import decide
from launcher.gate.policy import POLICY_FILE, Policy, read_policy
from launcher.interruption import ctrl_c_ignored
from launcher.pipeline import training
from launcher.pipeline.finished_run import Run, canonical_name
from launcher.pipeline.inputs import find_data
from launcher.pipeline.oci_artifact import default_layout, write_layout
from launcher.pipeline.oci_push import Reference, push_layout
from launcher.pipeline.package import check_target, default_package, write_package
from launcher.project import shown, user_path
from launcher.promote import promotion
from launcher.promote.env_file import EnvVariable
from launcher.promote.models_file import RoleEntry
from launcher.promote.promoted_runs import PromotedRun, promoted_runs
from launcher.report.upkeep import report_kept
from launcher.reproduce.reproduction import ReproductionRequest, reproduction_folder
from launcher.reproduce.reproduction import reproduce as rebuild
from launcher.runs import comparison, run_summary
from launcher.runtime import dependency_locks, gpus, images, processor
from launcher.runtime.engine_choice import choose_engine
from launcher.runtime.llama_cpp_tools import tools
from launcher.serving import verification
from launcher.serving.compatibility import check_adapter, check_templates
from launcher.serving.model_import import Imported, import_run
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.served_bases import ServedBases
from launcher.serving.server_choice import Ollama, check_name, choose_server, demand_server


def train(
    *,
    profile: str,
    config: str,
    settings: Sequence[str],
    data: str,
    engine: str,
    memory: str,
    ollama: str,
    replace: bool,
    quiet: bool,
) -> None:
    """Run the pipeline, import the model where a server answers, and print the summary.

    With `quiet`, the run's folder alone is printed.
    """
    display = Display(quiet=quiet)
    recipe = _resolved(display, profile=profile, config=config, settings=settings, data=data)
    find_data(recipe)
    if recipe.device == "cuda":
        gpus.check_gpu(recipe.lock, recipe.precision)
    else:
        processor.check_precision(recipe.precision)
    # Before the training, and started after it.
    chosen = choose_server(ollama, display)
    if chosen is not None and chosen.version is not None:
        check_adapter(chosen.version, served=recipe.serving == "adapter")

    def check_server(needs_template_engine: str | None) -> None:
        if chosen is not None and chosen.version is not None:
            check_templates(chosen.version, needs_template_engine)

    outcome = training.train(
        recipe,
        choose_engine(engine, memory, display),
        display,
        server=ServedBases.of(chosen, ollama),
        check_templates=check_server,
    )
    imported = None
    with report_kept(outcome.run, display):
        if chosen is not None:
            with chosen.running() as server:
                imported = _import(
                    outcome.run,
                    recipe.output_model_name,
                    server=server,
                    display=display,
                    replace=replace,
                )
    if quiet:
        print(outcome.run.folder)
    else:
        summary.show(outcome.run, terminal(), imported=imported, ollama=chosen)


def import_model(model: str, *, run: str, ollama: str, replace: bool) -> None:
    """Import a finished run's model into Ollama, print its digest, and say how to ask it."""
    model = canonical_name(model)
    found = Run.find(model, run)
    display = Display()
    chosen = demand_server(ollama, display)
    with chosen.running() as server, report_kept(found, display):
        imported = _import(found, model, server=server, display=display, replace=replace)
    print(f"{imported.name}  {imported.digest}")
    for line in chosen.how_to_ask(model):
        display.note(line)


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


def compare(a: str, b: str, *, as_json: bool) -> None:
    """Print what differs between two runs: how they were made, and what came of it."""
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
        run, request, choose_engine(engine, "", display), display, server=_served_bases(display)
    )
    if target is not None:
        reproduction.write(target)
    reproduction_report.show(reproduction, terminal())
    display.note(f"rebuilt in {shown(request.into or reproduction_folder(run.manifest))}")
    if not reproduction.identical:
        raise SystemExit(int(ExitCode.DIFFERS))


def verify(model: str, *, run: str, ollama: str) -> None:
    """Prove that what the server serves under the name is the run's model; print the table."""
    model = canonical_name(model)
    found = Run.find(model, run)
    display = Display()
    with demand_server(ollama, display).running() as server, report_kept(found, display):
        by = "" if ollama == "host" else f" --ollama {ollama}"
        checks = verification.prove_named(found, server, model, display=display, how=by)
    verification.show(checks, terminal())


def _import(
    run: Run, name: str, *, server: OllamaServer, display: Display, replace: bool
) -> Imported:
    def examine(candidate: str) -> None:
        checks = verification.prove(run, server, candidate, name=name, display=display)
        if not display.quiet:
            verification.show(checks, display.console)

    return import_run(run, name, server, display=display, replace=replace, examine=examine)


def evaluate(
    request: EvaluationRequest, *, run: str, ollama: str, engine: str, quiet: bool
) -> None:
    """Ask a model and its base, score the answers, and print the table.

    With `quiet`, the path of `evaluation.json` alone is printed.
    """
    display = Display(quiet=quiet)
    model = request.model
    found = Run.find(model, run) if run or Run.exists(model) else None
    evaluator = Evaluator(
        request=request,
        run=found,
        ollama=_server_to_ask(model, found, ollama=ollama, display=display),
        engine=choose_engine(engine, "", display),
        display=display,
    )
    with report_kept(found, display):
        home, evaluation = evaluator.evaluate()
    if quiet:
        print(home / paths.EVALUATION)
        return
    report.show(evaluation, terminal())
    display.note(f"full results: {shown(home / paths.EVALUATION)}")
    if found is not None:
        display.note(f"next:  ./invoke gate --model {model}")


def gate(model: str, *, run: str, policy: str) -> None:
    """Compare the last evaluation with the policy, print the card, and exit 3 where it refuses."""
    model = canonical_name(model)
    found = Run.find(model, run)
    evaluation = Evaluation.of_run(found.folder, model)
    _note_unfinished(found)
    decision = decide(found, evaluation, _policy(policy))
    with report_kept(found, Display()):
        evaluation.model_copy(update={"gate": decision}).write(found.folder / paths.EVALUATION)
        atomic_write(found.folder / paths.CARD, card.markdown(evaluation, decision))
    card.show(evaluation, decision, terminal())
    Display().note(f"Markdown for a pull request: {shown(found.folder / paths.CARD)}")
    if not decision.ship:
        raise SystemExit(int(ExitCode.GATE_REFUSED))


def promote(
    model: str,
    *,
    role: str,
    run: str,
    policy: str,
    override: str,
    ollama: str,
    env_file: str,
    env_key: str,
) -> None:
    """Point a role at a model through the gate, and print what changed."""
    if bool(env_file) != bool(env_key):
        raise UserError.one(
            "--env-file" if env_file else "--env-key",
            "cannot be used alone",
            "Give both: --env-file PATH --env-key NAME.",
        )
    model = canonical_name(model)
    entry = RoleEntry.read(role)
    env = EnvVariable.read(user_path(env_file, "--env-file"), env_key) if env_file else None
    found = Run.find(model, run)
    demands = _policy(policy)
    _note_unfinished(found)
    with demand_server(ollama, Display()).running() as server:
        changed = promotion.promote(
            found, model, entry, server=server, policy=demands, override=override, env=env
        )
    print(f"{role}: {changed.before} -> {changed.after}")
    Display().note(f"to undo:  ./invoke rollback --role {role}")


def rollback(role: str) -> None:
    """Point a role at what it used before, and print what changed."""
    changed = promotion.rollback(RoleEntry.read(role))
    print(f"{role}: {changed.before} -> {changed.after}")


def _note_unfinished(run: Run) -> None:
    attempt = EvaluationAttempt.of_run(run.folder)
    if attempt is not None:
        Display().note(attempt.text)


def _policy(path: str) -> Policy:
    return read_policy(Path(path) if path else POLICY_FILE)


def _server_to_ask(model: str, run: Run | None, *, ollama: str, display: Display) -> Ollama | None:
    """The server to ask; None where llama-server loads the run's file."""
    chosen = choose_server(ollama, display)
    if ollama != "auto" or run is None or chosen is None:
        return chosen
    with chosen.running() as server:
        if server.digest(model) is not None:
            return chosen
        where = server.public_address
        display.note(f"{where} has no model {model}: llama-server loads its file instead")
    return None


def plan(*, profile: str, config: str, settings: Sequence[str], data: str, engine: str) -> None:
    """Print what a run would do, and how it would train; exit 2 where the base has problems."""
    display = Display()
    recipe = _resolved(display, profile=profile, config=config, settings=settings, data=data)
    planned = training.plan(
        recipe, choose_engine(engine, "", display), display, server=_served_bases(display)
    )
    card = gpus.training_card(recipe.device, recipe.lock, recipe.precision)
    plan_report.show(planned, card, terminal())


def data(
    *, profile: str, config: str, settings: Sequence[str], data: str, engine: str, quiet: bool
) -> None:
    """Prepare the dataset in a folder of its own and print the report."""
    display = Display(quiet=quiet)
    recipe = _resolved(display, profile=profile, config=config, settings=settings, data=data)
    find_data(recipe)
    found = data_report.prepare(
        recipe, choose_engine(engine, "", display), display, server=_served_bases(display)
    )
    data_report.show(found, recipe, terminal())


def audit(
    *,
    profile: str,
    config: str,
    settings: Sequence[str],
    data: str,
    engine: str,
    ollama: str,
    bom: str,
    as_json: bool,
) -> None:
    """Print what of a run's inputs no digest pins, before the run; exit 3 where there is any."""
    if bom:
        raise UserError.one("--bom", "is of a finished run", "Name it: --run RUN.")
    check_name(ollama)
    display = Display(quiet=as_json)
    recipe = _resolved(display, profile=profile, config=config, settings=settings, data=data)
    chosen = choose_engine(engine, "", display)
    server = _served_bases(display)
    found = inputs_of_recipe(recipe, engine=chosen.name, ollama=ollama, server=server)
    audit_report.show(found, display, as_json=as_json)


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


def build(
    *, profile: str, dev: bool, exporter: bool, inputs: images.BuildInputs, check: bool
) -> None:
    """Build the trainer of a profile's lock, its exporter or the devcontainer; print the digest.

    With `check`, build it twice from nothing and compare; exit 1 where the digests differ.
    """
    from launcher.runtime.docker_engine import DockerEngine

    lock = str(profile_values(profile)["lock"])
    target = images.DEV if dev else images.exporter(lock) if exporter else lock
    display = Display()
    docker = DockerEngine()
    if not check:
        print(f"{images.tag(target)}  {docker.build(target, inputs, display)}")
        return
    digests = [images.digest_of_fresh_build(target, inputs, display) for _ in range(2)]
    for digest in digests:
        print(f"{target}  {digest}")
    print(images.builder())
    if len(set(digests)) != 1:
        raise SystemExit("affineur: the two builds differ")


def build_tools() -> None:
    """Compile llama.cpp's tools, if they are not there, and print their folder."""
    print(tools(Display()))


def doctor(profile: str, engine: str) -> None:
    """Print what this machine has for a profile; exit 2 where something fails."""
    # The SDK takes a while to import.
    from launcher.cli.doctor import examine, show

    findings = examine(profile, engine)
    show(findings, terminal())
    if any(finding.state == "fail" for finding in findings):
        raise SystemExit(int(ExitCode.USER_ERROR))


def lock(only: Sequence[str]) -> None:
    """Regenerate locks and print what moved."""
    for name, lines in dependency_locks.regenerate(only).items():
        print(f"{name}.lock: {'no change' if not lines else ''}")
        for line in lines:
            print(f"  {line}")


def _served_bases(display: Display) -> ServedBases:
    """The models of the server that answers, if one does."""
    return ServedBases.of(choose_server("auto", display), "auto")


def _resolved(
    display: Display, *, profile: str, config: str, settings: Sequence[str], data: str
) -> Recipe:
    return resolve(
        profile,
        config=Path(config) if config else None,
        settings=settings,
        data=data or None,
        note=display.note,
    )
