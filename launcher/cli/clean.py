"""`./invoke clean`: say what of the runs can go, and remove it where somebody says so."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

from contract.errors import ExitCode
from launcher.display import byte_size, print_indented, printable, styled
from launcher.promote.log import PromotionLog
from launcher.promote.promoted_runs import promoted_runs
from launcher.runs.removal_plan import RemovalPlan, removal_plan, remove_all

_INDENT = 12


def clean(model: str, *, yes: bool, console: Console) -> None:
    """Print what can go and how much it is; remove it with `yes`, or after an answered question.

    Raises:
        UserError: there is no such model, or what is promoted cannot be read.
        SystemExit: with 2, where something could not be removed.
    """
    plan = removal_plan(promoted_runs(), model)
    _show(plan, console)
    if not plan.removable:
        console.print("Nothing to remove.")
        return
    count = "1 of them" if len(plan.removable) == 1 else f"{len(plan.removable)} of them"
    if not yes and not _asked(f"Remove {count}, {byte_size(plan.size_bytes)}? [y/N] "):
        console.print(
            f"Nothing was removed. ./invoke clean{f' --model {model}' if model else ''} --yes "
            f"removes {byte_size(plan.size_bytes)}.",
            soft_wrap=True,
        )
        return
    _remove(plan, model, console)


def _show(plan: RemovalPlan, console: Console) -> None:
    """Each run, below what becomes of it."""
    if plan.kept:
        console.print(styled("[bold]stays[/]"))
    for kept in plan.kept:
        _entry(console, f"{kept.run.model}@{kept.run.key}", kept.run.size_bytes, kept.why)
    if plan.removable:
        console.print(styled("[bold]would go[/]"))
    for one in plan.removable:
        name = f"{one.run.model}@{one.run.key}"
        _entry(console, name, one.size_bytes, one.why)


def _entry(console: Console, name: str, size_bytes: int, why: str) -> None:
    console.print(styled("  {}  {}", f"{byte_size(size_bytes):>8}", printable(name)))
    print_indented(console, Text(printable(why), "dim"), _INDENT)


def _asked(question: str) -> bool:
    """Whether a person at the terminal says yes; False where nobody is there to be asked."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _remove(plan: RemovalPlan, model: str, console: Console) -> None:
    freed_bytes, stayed = 0, 0
    log = PromotionLog()
    # So that nothing is promoted between the look and the removal.
    with log.held():
        for one, why in remove_all(promoted_runs, plan, model):
            if why:
                stayed += 1
                name = printable(f"{one.run.model}@{one.run.key}")
                console.print(styled("[red]stays[/] {}: {}", name, printable(why)), soft_wrap=True)
            else:
                freed_bytes += one.size_bytes
    console.print(f"{byte_size(freed_bytes)} freed.")
    if stayed:
        raise SystemExit(int(ExitCode.USER_ERROR))
