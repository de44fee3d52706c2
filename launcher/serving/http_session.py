"""HTTP to a model server: `requests`, less what would send a request elsewhere than was said."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_REDIRECTS = (301, 302, 303, 307, 308)


class Redirected(requests.RequestException):
    """The server names another place. Followed, a POST would become a GET and count as done."""


class ServerSession(requests.Session):
    """A session with one server.

    One on this machine is reached by no proxy, and is sent no password of a `.netrc`, whatever the
    environment says.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self.trust_env = not is_loopback(urlsplit(address).hostname)
        self._connections: WeakSet[HTTPConnection] = WeakSet()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _KnownConnections(self._connections))

    def request(self, *arguments: Any, **more: Any) -> requests.Response:
        """As `requests` has it, but that a redirect is an error.

        Raises:
            Redirected: the server names another place.
            requests.RequestException: it does not answer.
        """
        answer = super().request(*arguments, **{**more, "allow_redirects": False})
        if answer.status_code in _REDIRECTS:
            answer.close()
            raise Redirected(f"redirects to {answer.headers.get('Location', 'nowhere')}")
        return answer

    def abort(self) -> None:
        """End every request that waits for its answer, in whichever thread: it fails at once.

        The server sees that nobody is there any more. Later requests connect anew.
        """
        for connection in list(self._connections):
            opened = connection.sock
            if opened is not None:
                # Not closed under the thread that reads: that would never wake up.
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)


class _KnownConnections(HTTPAdapter):
    """An adapter that says which connections it opened: urllib3 forgets those in use."""

    def __init__(self, opened: WeakSet[HTTPConnection]) -> None:
        self._opened = opened
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        """See `HTTPAdapter.init_poolmanager`."""
        super().init_poolmanager(*arguments, **more)
        known = self._opened

        class Plain(HTTPConnectionPool):
            def _new_conn(self) -> Any:
                connection = super()._new_conn()
                known.add(connection)  # type: ignore[arg-type]
                return connection

        class Encrypted(HTTPSConnectionPool):
            def _new_conn(self) -> Any:
                connection = super()._new_conn()
                known.add(connection)  # type: ignore[arg-type]
                return connection

        self.poolmanager.pool_classes_by_scheme = {"http": Plain, "https": Encrypted}


def is_loopback(host: str | None) -> bool:
    """Whether a host name, as it stands in an address, is this machine's own."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
