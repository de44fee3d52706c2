"""HTTP to a model server: `requests`, less what would send a request elsewhere than was said."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import requests

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


def is_loopback(host: str | None) -> bool:
    """Whether a host name, as it stands in an address, is this machine's own."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
