"""What an Ollama server says, read strictly: a value of the expected shape, or one sentence."""

from __future__ import annotations

from typing import Any

import requests
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from contract.errors import UserError
from contract.json_reading import BadJson, TooDeep, read_reply

_SHOWN_CHARACTERS = 300


class _Shape(BaseModel):
    """As much of a reply as is looked at."""

    model_config = ConfigDict(extra="ignore", strict=True, protected_namespaces=())


class _Listed(_Shape):
    name: str
    digest: str


class Models(_Shape):
    """Of `/api/tags`."""

    models: list[_Listed] | None = None


class Shown(_Shape):
    """Of `/api/show`; servers leave out what is empty."""

    modelfile: str | None = None
    template: str | None = None
    system: str | None = None
    parameters: str | None = None
    license: str | list[str] | None = None
    capabilities: list[str] | None = None
    messages: list[JsonValue] | None = None


class Progressed(_Shape):
    """A line of `/api/create`."""

    status: str | None = None


class Generated(_Shape):
    """Of `/api/generate`."""

    response: str
    done_reason: str | None = None
    context: list[int] | None = None


class _Rendered(_Shape):
    rendered_template: str


class Chatted(_Shape):
    """Of `/api/chat`."""

    message: dict[str, JsonValue] | None = None
    done_reason: str | None = None
    debug_info: _Rendered | None = Field(None, alias="_debug_info")

    @model_validator(mode="after")
    def _says_something(self) -> Chatted:
        # A prompt that is only written comes without a message.
        if self.message is None and self.debug_info is None:
            raise ValueError("it has no message")
        return self


def read_object(reply: bytes, doing: str) -> dict[str, Any]:
    """The JSON object that a reply is.

    Raises:
        TooDeep: it is nested too deeply, as what a model writes may be.
        UserError: it is an error, also one under HTTP 200, or no object at all.
    """
    try:
        said = read_reply(reply)
    except TooDeep:
        raise
    except BadJson as error:
        raise refusal(doing, f"its reply is not JSON: {error}") from None
    if not isinstance(said, dict):
        raise refusal(doing, "its reply is not a JSON object")
    if "error" in said:
        raise refusal(doing, str(said["error"]))
    return said


def read_shape(reply: bytes, doing: str, shape: type[BaseModel]) -> dict[str, Any]:
    """The object that a reply of the server itself is, of this shape.

    Raises:
        UserError: it is none.
    """
    try:
        return checked(read_object(reply, doing), doing, shape)
    except TooDeep as error:
        raise refusal(doing, f"its reply is {error}") from None


def check_done(reply: bytes, doing: str) -> None:
    """See that a reply says nothing but that it was done: Ollama then sends none at all.

    A page that asks for a password comes under HTTP 200 as well.

    Raises:
        UserError: it is an error, or is no server's.
    """
    if reply.strip():
        try:
            read_object(reply, doing)
        except TooDeep as error:
            raise refusal(doing, f"its reply is {error}") from None


def checked(said: dict[str, Any], doing: str, shape: type[BaseModel]) -> dict[str, Any]:
    """The object, once it is seen to have this shape.

    Raises:
        UserError: it has not.
    """
    try:
        shape.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        found = f"its reply is not Ollama's ({key}: {first['msg'].lower()})"
        raise refusal(doing, found) from None
    return said


def error_text(answer: requests.Response) -> str:
    """What the server says in a reply that is an error."""
    try:
        said = read_reply(answer.content)
    except BadJson:
        said = None
    if isinstance(said, dict) and "error" in said:
        return str(said["error"])
    return answer.text.strip() or f"HTTP {answer.status_code}"


def scored_as(text: str, reason: str) -> dict[str, Any]:
    """An answer in the form of both `/api/generate` and `/api/chat`."""
    message = {"role": "assistant", "content": text}
    return {"response": text, "message": message, "done_reason": reason}


def refusal(doing: str, said: str) -> UserError:
    """The sentence for what a server said, with the remedy where it is known."""
    if "no space left" in said:
        remedy = "Free some space on the server's disk and run the same command again."
    elif "digest mismatch" in said:
        remedy = "The file changed while it was read; run the same command again."
    else:
        remedy = ""
    short = said if len(said) <= _SHOWN_CHARACTERS else f"{said[:_SHOWN_CHARACTERS]}..."
    return UserError.one("Ollama", f"the server returned an error ({doing}): {short}", remedy)
