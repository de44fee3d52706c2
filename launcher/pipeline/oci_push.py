"""Push an OCI artifact to a registry.

The credentials are those of `docker login`, read by Docker's SDK, which knows its credential
stores. ORAS' library does not, and tries a refused request for two minutes without a word.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from contract.errors import UserError
from contract.events import Progress
from launcher.display import Display
from launcher.pipeline.oci_artifact import MANIFEST_TYPE, Descriptor, Layout

# The specification's own patterns (distribution-spec, "Pulling manifests").
_NAME = re.compile(
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII
)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+)(:\d+)?", re.ASCII)
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
# To connect, and between two parts of an answer.
_TIMEOUT_S = (10.0, 600.0)
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Reference:
    """Where an artifact is pushed to."""

    host: str
    name: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """`HOST/NAME:TAG`; without a tag it is `latest`.

        Raises:
            UserError: it is none. No registry is assumed where none is named.
        """
        host, _, rest = text.partition("/")
        name, colon, tag = rest.partition(":")
        is_host = "." in host or ":" in host or host == "localhost"
        tag = tag if colon else "latest"
        if (
            not is_host
            or not _HOST.fullmatch(host)
            or not _NAME.fullmatch(name)
            or not _TAG.fullmatch(tag)
        ):
            raise UserError.one(
                "--push",
                f"{text} names no place in a registry",
                "Use HOST/NAME:TAG, all of NAME in small letters: "
                "registry.example.org/me/model:1.0.",
            )
        return cls(host, name, tag)

    @property
    def is_local(self) -> bool:
        """Whether it is this machine's own, which speaks HTTP as Docker takes it."""
        host = self.host.rpartition(":")[0] or self.host
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"{self.host}/{self.name}:{self.tag}"


def push_layout(folder: Path, reference: Reference, display: Display) -> None:
    """Push the artifact in a folder: first its blobs, then its manifest, byte for byte.

    Raises:
        UserError: the registry cannot be reached, refuses it, or took something else.
    """
    layout = Layout(folder)
    registry = _Registry(reference)
    with display.working("push", str(reference)) as line:
        total = len(layout.blobs) + 1
        for number, blob in enumerate(layout.blobs):
            line.on_event(Progress(doing="pushing", done=number, total=total, unit="blobs"))
            registry.push_blob(layout.blob(blob.digest), blob)
        line.on_event(Progress(doing="pushing", done=total - 1, total=total, unit="blobs"))
        took = registry.push_manifest(layout.manifest)
    if took not in (None, layout.digest):
        raise UserError.one(
            str(reference), f"the registry took {took}, and not {layout.digest}", "Push again."
        )


class _Registry:
    """A repository of a registry, as its specification has it (distribution-spec, "Push")."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        scheme = "http" if reference.is_local else "https"
        self._url = f"{scheme}://{reference.host}/v2/{reference.name}"
        self._session = requests.Session()

    def push_blob(self, file: Path, blob: Descriptor) -> None:
        """Push a file, unless it is there already."""
        there = self._ask("HEAD", f"{self._url}/blobs/{blob.digest}", missing=True)
        if there.ok:
            return
        begun = self._ask("POST", f"{self._url}/blobs/uploads/")
        place = urljoin(f"{self._url}/blobs/uploads/", begun.headers.get("Location", ""))
        place += f"{'&' if urlsplit(place).query else '?'}digest={blob.digest}"
        headers = {
            "Content-Type": "application/octet-stream",
            # An empty file has none of its own, and no end without it.
            "Content-Length": str(blob.size),
        }
        with file.open("rb") as content:
            self._ask("PUT", place, headers=headers, data=content)

    def push_manifest(self, manifest: bytes) -> str | None:
        """Push the manifest under the tag; the digest of what the registry took, if it says so."""
        headers = {"Content-Type": MANIFEST_TYPE}
        url = f"{self._url}/manifests/{self._reference.tag}"
        answer = self._ask("PUT", url, headers=headers, data=manifest)
        return answer.headers.get("Docker-Content-Digest")

    def _ask(
        self, method: str, url: str, *, missing: bool = False, **more: Any
    ) -> requests.Response:
        """The answer to a request that went well, or where `missing` is one, to one that found
        nothing.

        Raises:
            UserError: the registry cannot be reached, or refused it.
        """
        try:
            answer = self._session.request(method, url, timeout=_TIMEOUT_S, **more)
            if answer.status_code == 401 and self._log_in(answer):
                if hasattr(more.get("data"), "seek"):
                    more["data"].seek(0)
                answer = self._session.request(method, url, timeout=_TIMEOUT_S, **more)
        except requests.RequestException as error:
            raise UserError.one(
                str(self._reference),
                f"the registry does not answer ({type(error).__name__})",
                "Check its name, and that this machine reaches it.",
            ) from None
        if answer.status_code in (401, 403):
            raise UserError.one(
                str(self._reference),
                f"the registry does not let us push there ({answer.status_code})",
                f"Log in: docker login {self._reference.host}.",
            )
        if not answer.ok and not (missing and answer.status_code == 404):
            said = " ".join(answer.text.split())[:_SHOWN_CHARACTERS]
            raise UserError.one(
                str(self._reference), f"the registry said {answer.status_code}: {said}"
            )
        return answer

    def _log_in(self, refused: requests.Response) -> bool:
        """Answer a challenge, as RFC 7235 and distribution's `auth/token.md` have it: with what
        `docker login` keeps, or with a token that it buys, or that anybody gets.
        """
        from docker import auth

        challenge = refused.headers.get("WWW-Authenticate", "")
        kind, _, rest = challenge.partition(" ")
        found = auth.resolve_authconfig(auth.load_config(), self._reference.host) or {}
        # A credential store names them in capitals, the file itself does not.
        known = {name.lower(): value for name, value in found.items()}
        person = (known["username"], known["password"]) if known.get("username") else None
        if kind.lower() == "basic":
            self._session.auth = person
            return person is not None
        said = dict(_PARAMETER.findall(rest))
        if kind.lower() != "bearer" or "realm" not in said:
            return False
        wanted = {name: said[name] for name in ("service", "scope") if name in said}
        answer = requests.get(said["realm"], params=wanted, auth=person, timeout=_TIMEOUT_S)
        token = answer.json() if answer.ok else {}
        bought = token.get("token") or token.get("access_token")
        if bought:
            self._session.headers["Authorization"] = f"Bearer {bought}"
        return bool(bought)
