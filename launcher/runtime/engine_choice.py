"""Which engine runs the stages."""

from __future__ import annotations

from contract.errors import UserError
from launcher.display import Display
from launcher.runtime.engine import Engine
from launcher.runtime.local_engine import LocalEngine

NAMES = ("auto", "local", "docker")


def check_name(name: str) -> None:
    """See that an engine of this name is known.

    Raises:
        UserError: it is not.
    """
    if name not in NAMES:
        raise UserError.one(
            "--engine", f"there is no engine {name!r}", f"Known: {', '.join(NAMES)}."
        )


def choose_engine(name: str, memory: str, display: Display) -> Engine:
    """The engine of this name, and in one line what was taken.

    `auto` takes Docker where an engine answers, and says why where it does not take it.
    `memory` is the most that a stage may use, in Docker's form (`12g`); empty for no bound.

    Raises:
        UserError: no such engine, or it does not answer, or it cannot bound memory.
    """
    check_name(name)
    why = "as requested"
    if name != "local":
        # Here, not above: the SDK takes a while to import.
        from launcher.runtime.docker_engine import DockerEngine

        try:
            engine = DockerEngine(memory)
        except UserError as error:
            if name == "docker" or memory:
                raise
            why = f"docker: {error.problems[0].what}"
        else:
            display.note(f"engine docker, at {engine.endpoint()}")
            return engine
    if memory:
        raise UserError.one(
            "--memory", "the local engine has no memory limit", "Use --engine docker."
        )
    display.note(f"engine local ({why})")
    return LocalEngine()
