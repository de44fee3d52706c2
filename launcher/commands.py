"""The launcher's calls, one a task: resolve the recipe, do the work, show the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from launcher import cards, data_report, images, locks, pipeline, summary
from launcher.configuration import profile_values, resolve
from launcher.display import Display
from launcher.engine.choice import choose_engine
from trainer.contract.errors import ExitCode
from trainer.contract.recipe import Recipe


def train(
    profile: str,
    config: str,
    settings: Sequence[str],
    data: str,
    engine: str,
    memory: str,
    quiet: bool,
) -> None:
    """Run the pipeline and print its summary; with `quiet`, the run's folder alone."""
    recipe = _resolved(profile, config, settings, data)
    pipeline.find_data(recipe)
    if recipe.device == "cuda":
        cards.check_card(recipe.lock, recipe.precision)
    display = Display(quiet=quiet)
    outcome = pipeline.train(recipe, choose_engine(engine, memory, display), display)
    if quiet:
        print(outcome.folder)
    else:
        summary.show(outcome, Console(highlight=False))


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


def build(profile: str, dev: bool, inputs: images.BuildInputs, check: bool) -> None:
    """Build the image of a profile's lock, or the devcontainer's, and print its digest.

    With `check`, build it twice from nothing and compare; exit 1 where the digests differ.
    """
    from launcher.engine.docker import DockerEngine

    target = images.DEV if dev else str(profile_values(profile)["lock"])
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
