"""Chromium without a window, asked by its own protocol over two pipes: no driver, no network.

https://chromedevtools.github.io/devtools-protocol/ has the methods and events.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# In this order; `AFFINEUR_BROWSER` names another.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_DEADLINE_S = 60.0
# Above what a shell and Chromium give a meaning to.
_FREE_FD = 20

Message = dict[str, Any]


def executable() -> str:
    """The browser's program.

    Raises:
        LookupError: there is none. A test that asks for it fails, and never skips.
    """
    names = [os.environ["AFFINEUR_BROWSER"]] if "AFFINEUR_BROWSER" in os.environ else NAMES
    for name in names:
        if found := shutil.which(name):
            return found
    raise LookupError(
        f"no browser: none of {', '.join(names)} is on the PATH "
        "(Debian: apt-get install chromium; elsewhere: AFFINEUR_BROWSER=PATH)"
    )


class Browser:
    """A browser and its one page; it ends with `close`."""

    def __init__(self, profile: Path) -> None:
        self.events: list[Message] = []
        self._number, self._buffer = 0, b""
        theirs_in, self._to = _pipe()
        self._from, theirs_out = _pipe()
        # It reads commands from descriptor 3, and writes answers and events to 4.
        wrapper = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        flags = ["--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        flags += ["--no-first-run", "--disable-background-networking", "--hide-scrollbars"]
        flags += ["--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
        # Its sandbox refuses to be root's.
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            ["bash", "-c", wrapper, executable(), *flags],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._session = ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def close(self) -> None:
        """End it."""
        self._session = ""
        self._send("Browser.close", {})
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def look_like(self, *, width: int, height: int, scheme: str, media: str = "") -> None:
        """Take the size of a screen, `light` or `dark`, and another medium such as `print`."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)

    def open(self, page: Path | str) -> None:
        """Load a file or an address, and forget the events of before."""
        self.events.clear()
        self.ask("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression on the page.

        Raises:
            RuntimeError: it throws.
        """
        found = self.ask("Runtime.evaluate", expression=code, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def print_to(self, path: Path) -> None:
        """The page as a PDF, as its print dialog makes it."""
        found = self.ask("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def requests(self) -> list[str]:
        """The addresses that the page asked for since it was opened."""
        return [
            event["params"]["request"]["url"] for event in self._of("Network.requestWillBeSent")
        ]

    def complaints(self) -> list[Message]:
        """What the page has on its console since it was opened."""
        names = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event["params"] for name in names for event in self._of(name)]

    def ask(self, method: str, **parameters: Any) -> Message:
        """Call a method of the protocol.

        Raises:
            RuntimeError: it is refused.
            TimeoutError: there is no answer.
        """
        number = self._send(method, parameters)
        answer = self._wait(lambda message: message.get("id") == number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: Message = answer["result"]
        return result

    def _of(self, method: str) -> list[Message]:
        return [event for event in self.events if event["method"] == method]

    def _send(self, method: str, parameters: Message) -> int:
        self._number += 1
        message: Message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._number

    def _wait(self, wanted: Callable[[Message], bool]) -> Message:
        deadline_s = time.monotonic() + _DEADLINE_S
        while True:
            message = self._next(deadline_s)
            if "method" in message:
                self.events.append(message)
            if wanted(message):
                return message

    def _next(self, deadline_s: float) -> Message:
        while b"\0" not in self._buffer:
            left_s = max(0.0, deadline_s - time.monotonic())
            if not select.select([self._from], [], [], left_s)[0]:
                raise TimeoutError(f"the browser did not answer within {_DEADLINE_S:.0f} s")
            if not (piece := os.read(self._from, 1 << 16)):
                raise RuntimeError(f"the browser ended with {self._process.wait()}")
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: Message = json.loads(text)
        return message


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are none of the descriptors that the browser gives a meaning to."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FREE_FD) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]
