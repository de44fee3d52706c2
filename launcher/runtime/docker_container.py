"""One container's life: started, told what it is to hear, followed, stopped or killed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from docker import DockerClient
from docker.errors import APIError, NotFound

from contract.errors import ExitCode
from contract.events import Event, parse_event
from contract.launch import Launch
from launcher.display import Display
from launcher.runtime import docker_errors
from launcher.runtime.engine import STOPPING, TIME_TO_STOP_S, Ending, Job
from launcher.runtime.logged_process import open_log

if TYPE_CHECKING:
    from docker.models.containers import Container

# How long a container that is in the middle of something is tried to be killed.
_KILL_TRIES, _KILL_EVERY_S = 50, 0.1


def follow(container: Container, job: Job, on_event: Callable[[Event], None]) -> Ending:
    """Start the container, say what it is to hear, and hand on its events until it ends.

    Raises:
        UserError: the engine cannot start it.
    """
    stream = container.attach(stdout=True, stderr=True, stream=True, demux=True, logs=True)
    with _standard_input(container) as say, open_log(job.log) as log:
        try:
            container.start()
        except APIError as error:
            raise docker_errors.refused_start(docker_errors.explanation(error)) from error
        say(Launch.line(job.secrets))
        for line in _event_lines(stream, log.write):
            event = parse_event(line)
            if event is None:
                log.write(line + "\n")
            else:
                on_event(event)
    ended = container.wait()
    container.reload()
    code = int(ended["StatusCode"])
    if code > 128 and code != ExitCode.INTERRUPTED:
        # By convention, 128 and the signal's number.
        code = 128 - code
    return Ending(
        code,
        memory_ran_out=bool(container.attrs["State"].get("OOMKilled")),
        memory_limit_bytes=container.attrs["HostConfig"].get("Memory") or None,
    )


def stop(container: Container, display: Display) -> None:
    """Let it end in good order, for as long as that may take."""
    with suppress(NotFound, APIError):
        container.reload()
        if container.status == "running":
            display.note(STOPPING)
            container.stop(timeout=TIME_TO_STOP_S)


def kill(name: str, *, made: bool) -> None:
    """Kill and remove a container at once, over a connection of its own.

    The main thread may be anywhere in its own, waiting for good order, or making this container.
    """
    client = DockerClient.from_env()
    for _ in range(_KILL_TRIES):
        try:
            client.containers.get(name).remove(force=True)
        except NotFound:
            if made:
                return
        except APIError:
            # At this very moment, it is being started or removed.
            made = True
        else:
            return
        time.sleep(_KILL_EVERY_S)


@contextmanager
def _standard_input(container: Container) -> Iterator[Callable[[bytes], None]]:
    """A function that writes to the container's standard input, which ends with the block.

    It ends with this process as well, however that ends: the connection is the engine's only hold.
    """
    attached: Any = container.attach_socket(params={"stdin": 1, "stream": 1})
    # The SDK gives a reader of the socket, or where it is an SSH channel, the channel.
    connection = getattr(attached, "_sock", attached)

    def say(line: bytes) -> None:
        # One that has ended already is not to be told anything.
        with suppress(OSError):
            connection.sendall(line)

    try:
        yield say
    finally:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        attached.close()


def _event_lines(stream: Any, on_error_output: Callable[[str], Any]) -> Iterator[str]:
    """Standard output by lines; standard error to the log as it comes."""
    pending = b""
    for output, error in stream:
        if error:
            on_error_output(error.decode(errors="replace"))
        if output:
            *lines, pending = (pending + output).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
    if pending:
        yield pending.decode(errors="replace")
