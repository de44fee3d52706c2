"""The launcher's calls, one a task: resolve the recipe, do the work, show the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contract import paths
from contract.atomic_write import atomic_write
from contract.errors import ExitCode, UserError
from contract.recipe import Recipe
from launcher.attest.audit import inputs_of_recipe
from launcher.cli import (
    audit_report,
    data_report,
    plan_report,
    summary,
)
from launcher.configuration import profile_values, resolve
from launcher.display import Display, terminal
from launcher.evaluate import report
from launcher.evaluate.evaluation import EvaluationRequest, Evaluator
from launcher.evaluate.record import Evaluation, EvaluationAttempt
from launcher.gate import card
from launcher.gate.decision import decide
from launcher.gate.policy import POLICY_FILE, Policy, read_policy
from launcher.pipeline import training
from launcher.pipeline.finished_run import Run, canonical_name
from launcher.pipeline.inputs import find_data
from launcher.project import shown, user_path
from launcher.promote import promotion
from launcher.promote.env_file import EnvVariable
from launcher.promote.models_file import RoleEntry
from launcher.report.upkeep import report_kept
from launcher.runtime import dependency_locks, gpus, images, processor
from launcher.runtime.engine_choice import choose_engine
from launcher.runtime.llama_cpp_tools import tools
from launcher.serving import verification
from launcher.serving.compatibility import check_adapter, check_templates
from launcher.serving.model_import import Imported, check_name_is_ours, import_run
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
    if chosen is not None:
        _check_server(chosen, recipe, replace=replace)

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


def verify(model: str, *, run: str, ollama: str) -> None:
    """Prove that what the server serves under the name is the run's model; print the table."""
    model = canonical_name(model)
    found = Run.find(model, run)
    display = Display()
    with demand_server(ollama, display).running() as server, report_kept(found, display):
        by = "" if ollama == "host" else f" --ollama {ollama}"
        checks = verification.prove_named(found, server, model, display=display, how=by)
    verification.show(checks, terminal())


def _check_server(chosen: Ollama, recipe: Recipe, *, replace: bool) -> None:
    """See what would keep the server from taking the model, as far as that is known by now."""
    if chosen.version is not None:
        check_adapter(chosen.version, served=recipe.serving == "adapter")
    if chosen.already_running is not None and not replace:
        check_name_is_ours(recipe.output_model_name, chosen.already_running)


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
    chosen = choose_server("auto", display)
    if chosen is not None:
        try:
            _check_server(chosen, recipe, replace=False)
        except UserError as error:
            display.note(f"train would be refused: {error}")
    planned = training.plan(
        recipe,
        choose_engine(engine, "", display),
        display,
        server=ServedBases.of(chosen, "auto"),
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
