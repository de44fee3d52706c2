"""The launcher's calls, one a task: resolve the recipe, do the work, show the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from launcher import cards, data_report, images, locks, pipeline, summary
from launcher.configuration import profile_values, resolve
from launcher.display import Display
from launcher.engine.choice import choose_engine
from launcher.runs import find_run
from launcher.serving import verifying
from launcher.serving.choice import choose_server, demand_server
from launcher.serving.forms import check_adapter
from launcher.serving.importing import Imported, import_run
from launcher.serving.server import OllamaServer
from launcher.tools import tools
from trainer.contract.errors import ExitCode, UserError
from trainer.contract.recipe import Recipe


def train(
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
    recipe = _resolved(profile, config, settings, data)
    pipeline.find_data(recipe)
    if recipe.device == "cuda":
        cards.check_card(recipe.lock, recipe.precision)
    display = Display(quiet=quiet)
    # Before the training, and started after it.
    chosen = choose_server(ollama, display)
    if chosen is not None and chosen.version is not None:
        check_adapter(chosen.version, served=recipe.serving == "adapter")
    outcome = pipeline.train(recipe, choose_engine(engine, memory, display), display)
    imported = None
    if chosen is not None:
        with chosen.running() as server:
            imported = _import(
                outcome.folder, recipe.output_model_name, server, display, replace=replace
            )
    if quiet:
        print(outcome.folder)
    else:
        summary.show(outcome, imported, chosen, Console(highlight=False))


def import_model(model: str, run: str, ollama: str, replace: bool) -> None:
    """Bring a finished run's model into Ollama, print its digest, and say how to ask it."""
    folder = find_run(model, run)
    display = Display()
    chosen = demand_server(ollama, display)
    with chosen.running() as server:
        imported = _import(folder, model, server, display, replace=replace)
    print(f"{imported.name}  {imported.digest}")
    for line in chosen.how_to_ask(model):
        display.note(line)


def verify(model: str, run: str, ollama: str) -> None:
    """Prove that what the server serves under the name is the run's model; print the table."""
    folder = find_run(model, run)
    display = Display()
    with demand_server(ollama, display).running() as server:
        if server.digest(model) is None:
            by = "" if ollama == "host" else f" --ollama {ollama}"
            raise UserError.one(
                "Ollama",
                f"{server.address} has no model {model}",
                f"./invoke import --model {model}{by}",
            )
        checks = verifying.prove(folder, server, model, display)
    verifying.show(checks, Console(highlight=False))


def _import(
    run: Path, name: str, server: OllamaServer, display: Display, *, replace: bool
) -> Imported:
    def examine(candidate: str) -> None:
        checks = verifying.prove(run, server, candidate, display)
        if not display.quiet:
            verifying.show(checks, display.console)

    return import_run(run, name, server, display, replace=replace, examine=examine)


def plan(profile: str, config: str, settings: Sequence[str], data: str) -> None:
    """Print each stage and what a run would do with it."""
    console = Console(highlight=False)
    for stage, state in pipeline.plan(_resolved(profile, config, settings, data)):
        console.print(f"{stage:<10} {state}", markup=False)


def data(
    profile: str, config: str, settings: Sequence[str], data: str, engine: str, quiet: bool
) -> None:
    """Prepare the dataset in a folder of its own and print the report."""
    recipe = _resolved(profile, config, settings, data)
    pipeline.find_data(recipe)
    display = Display(quiet=quiet)
    report = data_report.prepare(recipe, choose_engine(engine, "", display), display)
    data_report.show(report, recipe, Console(highlight=False))


def build(profile: str, dev: bool, exporter: bool, inputs: images.BuildInputs, check: bool) -> None:
    """Build the trainer of a profile's lock, its exporter or the devcontainer; print the digest.

    With `check`, build it twice from nothing and compare; exit 1 where the digests differ.
    """
    from launcher.engine.docker import DockerEngine

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
    from launcher.doctor import examine, show

    findings = examine(profile, engine)
    show(findings, Console(highlight=False))
    if any(finding.state == "fail" for finding in findings):
        raise SystemExit(int(ExitCode.USER_CAN_MEND))


def lock(only: Sequence[str]) -> None:
    """Regenerate locks and print what moved."""
    for name, lines in locks.regenerate(only).items():
        print(f"{name}.lock: {'nothing moved' if not lines else ''}")
        for line in lines:
            print(f"  {line}")


def _resolved(profile: str, config: str, settings: Sequence[str], data: str) -> Recipe:
    return resolve(profile, Path(config) if config else None, settings, data or None)
