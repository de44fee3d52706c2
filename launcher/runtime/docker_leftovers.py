"""Stop and remove the containers of launchers that were killed."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from docker import DockerClient
from docker.errors import APIError, NotFound

from launcher.display import Display
from launcher.runtime.engine import TIME_TO_STOP_S
from launcher.runtime.live_launchers import LiveLaunchers

if TYPE_CHECKING:
    from docker.models.containers import Container

PROJECT_LABEL = "dev.affineur.project"
PROJECT = "affineur"
LAUNCHER_LABEL = "dev.affineur.launcher"
FOLDERS_LABEL = "dev.affineur.folders"


def sweep(
    client: DockerClient,
    launchers: LiveLaunchers,
    folders: Collection[str],
    display: Display,
) -> None:
    """Stop in good order, and remove, what a dead launcher left.

    Args:
        folders: the identities of the folders that this launcher holds: whatever else works there
            has lost its launcher, also where that one cannot be seen from here.
    """
    named = set()
    ours = client.containers.list(
        all=True, filters={"label": f"{PROJECT_LABEL}={PROJECT}"}, ignore_removed=True
    )
    for container in ours:
        launcher = str(container.labels.get(LAUNCHER_LABEL, ""))
        works_in = str(container.labels.get(FOLDERS_LABEL, "")).split(",")
        left = launchers.is_dead(launcher) or not set(folders).isdisjoint(works_in)
        if not (left and _remove(container, display)):
            named.add(launcher)
    launchers.forget_dead(named)


def _remove(container: Container, display: Display) -> bool:
    try:
        if container.status == "running":
            display.note(f"stopping container {container.name}, left behind by a killed launcher")
            container.stop(timeout=TIME_TO_STOP_S)
        container.remove(force=True)
    except NotFound:
        return True
    except APIError:
        return False
    display.note(f"removed container {container.name}, left behind by a killed launcher")
    return True
