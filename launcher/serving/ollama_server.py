"""Speak to an Ollama server over HTTP: blobs, create, show, copy, generate.

Its API: https://github.com/ollama/ollama/blob/main/docs/api.md. What goes wrong comes out as a
sentence; errors after a stream has begun arrive under HTTP 200 and are found there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import requests
from pydantic import BaseModel

from contract.conversation import Message
from contract.errors import UserError
from contract.json_reading import BadJson, TooDeep, read_reply
from launcher.pipeline.model_files import ModelFiles
from launcher.serving.http_session import Redirected, ServerSession
from launcher.serving.ollama_address import address
from launcher.serving.ollama_names import canonical
from launcher.serving.ollama_replies import (
    Chatted,
    Generated,
    Models,
    Progressed,
    Shown,
    check_done,
    checked,
    error_text,
    read_object,
    read_shape,
    refusal,
    scored_as,
)

# To connect, and for the first answer: a server that loads a model can take its time.
_PATIENCE_S = (1.0, 10.0)
# For what a server answers at once.
_SHORT_S = 60.0
# Creating a model of 70 GB copies and hashes it without a word.
_SILENCE_S = 1800
# All else is as the model is served: a penalty that the server adds by itself must be seen. The
# seed decides nothing at temperature 0, and is sent for servers that draw all the same.
GREEDY: dict[str, Any] = {"temperature": 0, "seed": 0}
# What a server says of an answer that it broke off because it repeated itself.
REPETITION_LOOP = "token repeat limit reached"
# What it says of an answer that its parser of tool calls cannot read.
_UNREAD_CALLS = ("error parsing tool call", "tool call parsing failed")
_GO_ON = "Start it and run the same command again; uploaded files are kept."


def server_version() -> str | None:
    """The version of the server at `address()`, or None where none answers."""
    where = address()
    try:
        with ServerSession(where) as session:
            answer = session.get(f"{where}/api/version", timeout=_PATIENCE_S)
        return str(read_reply(answer.content)["version"])
    except (requests.RequestException, BadJson, KeyError, TypeError):
        return None


def ollama_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The turns with the names that this API has for reasoning and for the tool that returned."""
    names = {"reasoning_content": "thinking", "name": "tool_name"}
    return [{names.get(key, key): value for key, value in turn.items()} for turn in messages]


@dataclass
class OllamaServer:
    """A server that answers.

    Attributes:
        image: the id of the image that it runs in, where the launcher started its container.
    """

    address: str
    version: str
    image: str | None = None
    _session: ServerSession = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._session = ServerSession(self.address)

    @classmethod
    def found(cls) -> OllamaServer:
        """The server at `OLLAMA_HOST` or the default address.

        Raises:
            UserError: none answers there.
        """
        version = server_version()
        if version is None:
            raise UserError.one(
                "Ollama",
                f"no server responds at {address()}",
                "Start it (ollama serve), or set OLLAMA_HOST.",
            )
        return cls(address(), version)

    @property
    def public_address(self) -> str:
        """Its address for records and sentences: without the name and password in it."""
        scheme, _, rest = self.address.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"

    def digest(self, model: str) -> str | None:
        """The digest of the model's manifest, or None where there is no such model.

        A model that has the name in other letters (`M` for `m`) is the same to a server.
        """
        wanted = canonical(model)
        found = (digest for name, digest in self.models().items() if canonical(name) == wanted)
        return next(found, None)

    def models(self) -> dict[str, str]:
        """Every model that the server has, and its manifest's digest."""
        with self._named("listing its models"):
            answer = self._session.get(self._url("tags"), timeout=_SHORT_S)
            listed = self._reply(answer, Models)
        return {entry["name"]: entry["digest"] for entry in listed.get("models") or []}

    def has_blob(self, digest: str) -> bool:
        """Whether the server has the bytes of this digest (`sha256:...`) already."""
        with self._named("checking for a blob"):
            answer = self._session.head(self._url(f"blobs/{digest}"), timeout=_SHORT_S)
            return answer.status_code == 200

    def upload(self, file: Path, digest: str, on_bytes: Callable[[int], None]) -> None:
        """Send a file's bytes; the server compares the digest.

        Raises:
            UserError: the server went away, has no room, or received other bytes.
        """
        with self._named(f"receiving {file.name}"), file.open("rb") as opened:
            body = _Watched(opened, file.stat().st_size, on_bytes)
            answer = self._session.post(
                self._url(f"blobs/{digest}"), data=body, timeout=(10, _SILENCE_S)
            )
            self._done(answer)

    def create(self, model: str, files: ModelFiles, on_status: Callable[[str], None]) -> None:
        """Create a model of blobs that the server has, and demand the final `success`.

        Raises:
            UserError: the server refuses it, went away, or ended without saying `success`.
        """
        serving, blobs = files.serving, files.blobs
        request = {
            "model": model,
            "files": _by_name(blobs, serving.gguf),
            "parameters": serving.parameters,
            **({"adapters": _by_name(blobs, serving.adapter)} if serving.adapter else {}),
            **({"template": serving.template} if serving.template is not None else {}),
            **({"system": serving.system} if serving.system is not None else {}),
        }
        self._create(model, request, on_status)

    def create_with_history(self, model: str, source: str, history: Sequence[Message]) -> None:
        """Make a model of another one, whose every conversation begins with these turns.

        Raises:
            UserError: as `create`.
        """
        request = {"model": model, "from": source, "messages": ollama_messages(history)}
        self._create(model, request, lambda status: None)

    def _create(
        self, model: str, request: Mapping[str, Any], on_status: Callable[[str], None]
    ) -> None:
        doing = f"creating {model}"
        with (
            self._named(doing),
            self._session.post(
                self._url("create"), json=request, stream=True, timeout=(10, _SILENCE_S)
            ) as answer,
        ):
            self._checked(answer)
            last = ""
            for line in answer.iter_lines():
                if not line:
                    continue
                said = read_shape(line, doing, Progressed)
                last = said.get("status") or ""
                on_status(last)
        if last != "success":
            raise UserError.one(
                "Ollama",
                f"creating {model} did not succeed (last status: {last or 'none'})",
                _GO_ON,
            )

    def show(self, model: str) -> dict[str, Any]:
        """What the server reports of a model: template, parameters, modelfile, details."""
        with self._named(f"inspecting {model}"):
            request = {"model": model}
            answer = self._session.post(self._url("show"), json=request, timeout=_SHORT_S)
            return self._reply(answer, Shown)

    def copy(self, source: str, destination: str) -> None:
        """Give a model another name, in place of whatever had it."""
        request = {"source": source, "destination": destination}
        with self._named(f"naming {destination}"):
            answer = self._session.post(self._url("copy"), json=request, timeout=_SHORT_S)
            self._done(answer)

    def delete(self, model: str, *, patience_s: float = _SHORT_S) -> bool:
        """Remove a name; the blobs go when nothing else needs them.

        Returns:
            Whether there was one.

        Raises:
            UserError: the server refuses it, or says nothing for `patience_s` seconds.
        """
        request = {"model": model}
        with self._named(f"removing {model}"):
            answer = self._session.delete(self._url("delete"), json=request, timeout=patience_s)
            if answer.status_code == 404:
                return False
            self._done(answer)
            return True

    def generate(self, **request: Any) -> dict[str, Any]:
        """One whole answer of `/api/generate`; `done_reason` may be `REPETITION_LOOP`."""
        return self._answer("generate", request, Generated)

    def chat(self, **request: Any) -> dict[str, Any]:
        """One whole answer of `/api/chat`; `done_reason` may be `REPETITION_LOOP`.

        The messages are in the contract's form, and are sent in Ollama's.
        """
        sent = {**request, "messages": ollama_messages(request["messages"])}
        return self._answer("chat", sent, Chatted)

    def abort(self) -> None:
        """End every question that waits for its answer, in whichever thread: it fails at once."""
        self._session.abort()

    def _answer(
        self, path: str, request: dict[str, Any], shape: type[Generated | Chatted]
    ) -> dict[str, Any]:
        with self._named("answering"):
            answer = self._session.post(
                self._url(path), json={**request, "stream": False}, timeout=_SILENCE_S
            )
            # Ollama 0.34.1 reports what is wrong with an answer in place of it: the model is not
            # right, not the question.
            if not answer.ok and REPETITION_LOOP in answer.text:
                return scored_as(f"({REPETITION_LOOP})", REPETITION_LOOP)
            if not answer.ok and any(said in answer.text for said in _UNREAD_CALLS):
                return scored_as(answer.text, "stop")
            doing = _request_of(answer)
            try:
                return checked(read_object(self._checked(answer).content, doing), doing, shape)
            except TooDeep:
                # What the model wrote, and no fault of the server's.
                return scored_as(answer.text, "stop")

    def _url(self, path: str) -> str:
        return f"{self.address}/api/{path}"

    def _reply(self, answer: requests.Response, shape: type[BaseModel]) -> dict[str, Any]:
        """The object of this shape that a server's answer is.

        Raises:
            UserError: it is an error, also one under HTTP 200, or has another shape.
        """
        return read_shape(self._checked(answer).content, _request_of(answer), shape)

    def _done(self, answer: requests.Response) -> None:
        check_done(self._checked(answer).content, _request_of(answer))

    def _checked(self, answer: requests.Response) -> requests.Response:
        if answer.ok:
            return answer
        raise refusal(_request_of(answer), error_text(answer))

    @contextmanager
    def _named(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise UserError.one(
                "Ollama", f"lost the connection to {self.public_address} while {doing}", _GO_ON
            ) from error
        except requests.Timeout as error:
            raise UserError.one(
                "Ollama", f"{self.public_address} did not respond while {doing}", _GO_ON
            ) from error
        except Redirected as error:
            raise UserError.one(
                "Ollama",
                f"{self.public_address} {error} while {doing}",
                "Set OLLAMA_HOST to the server's own address.",
            ) from error
        except requests.RequestException as error:
            raise UserError.one(
                "Ollama",
                f"{self.public_address} did not reply as a server does while {doing} "
                f"({type(error).__name__})",
                "Check that OLLAMA_HOST is an Ollama server's address.",
            ) from error


def _request_of(answer: requests.Response) -> str:
    return f"{answer.request.method} {answer.request.path_url}"


def _by_name(blobs: Mapping[str, str], file: str) -> dict[str, str]:
    return {Path(file).name: blobs[file]}


class _Watched:
    """A file that says how much of it was read, with the length that HTTP wants beforehand."""

    def __init__(self, file: IO[bytes], size: int, on_bytes: Callable[[int], None]) -> None:
        self._file, self._size, self._on_bytes = file, size, on_bytes
        self._sent = 0

    def __len__(self) -> int:
        return self._size

    def read(self, amount: int = -1) -> bytes:
        # In pieces of 1 MiB at least: http.client asks for 8 KiB.
        data = self._file.read(amount)
        self._sent += len(data)
        self._on_bytes(self._sent)
        return data
