"""A model that the Ollama server has, as a base: its GGUF file in the server's store, its system
prompt and its stops.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import Problem, UserError
from launcher.pipeline.gguf_files import GgufFile, check_gguf, folder_name
from launcher.serving.ollama_address import address
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.server_choice import Ollama, OllamaHost
from launcher.serving.server_diff import reported_parameters

_BLOB = r"^FROM (/.*/sha256-([0-9a-f]{64}))\s*$"


@dataclass(frozen=True)
class ServedBases:
    """The models of a server as bases; see `launcher.pipeline.gguf_files.ModelServer`.

    `remark` says why there is no server, where there is none.
    """

    server: OllamaServer | None
    remark: str = ""

    @classmethod
    def of(cls, chosen: Ollama | None, choice: str) -> ServedBases:
        """Those of the server that was chosen by `--ollama choice`."""
        if isinstance(chosen, OllamaHost):
            with chosen.running() as server:
                return cls(server)
        if chosen is not None:
            return cls(None, f"The models of --ollama {choice} lie in a volume that is not read.")
        if choice == "none":
            return cls(None, "Without --ollama none, a server's models are looked at as well.")
        return cls(None, f"No Ollama server responds at {address()}.")

    def names(self) -> list[str]:
        """The models that the server has."""
        if self.server is None:
            return []
        return sorted(name.removesuffix(":latest") for name in self.server.models())

    def find(self, name: str) -> GgufFile | None:
        """The file of the model of this name; None where there is no such model.

        Raises:
            UserError: the model cannot be a base, or its file cannot be read here.
        """
        if self.server is None or self.server.digest(name) is None:
            return None
        reported = self.server.show(name)
        file, sha256 = self._blob(name, reported)
        try:
            check_gguf(
                file,
                "The server's own template is written in Go's language, in which nothing can be "
                "trained: use the Hugging Face model, or a GGUF file that has its chat template.",
            )
        except UserError as error:
            where = _where(name)
            raise UserError(
                [Problem(where=where, what=p.what, remedy=p.remedy) for p in error.problems]
            ) from None
        parameters = reported_parameters(reported)
        stops = parameters.pop("stop", [])
        return GgufFile(
            name=folder_name(name),
            source=f"{name} of Ollama",
            sha256=sha256,
            stops=tuple(stops),
            locate=lambda _display: file,
            system_prompt=str(reported.get("system") or "").strip() or None,
            not_taken=_not_taken(parameters, reported),
        )

    def _blob(self, name: str, reported: Mapping[str, Any]) -> tuple[Path, str]:
        """The model's file in the store, and its digest.

        Raises:
            UserError: the model is more than one file, or the file cannot be read here.
        """
        modelfile = str(reported.get("modelfile") or "")
        for text in (reported.get("template"), reported.get("system"), reported.get("license")):
            # Its lines are no instructions.
            modelfile = modelfile.replace(str(text), "") if text else modelfile
        if re.search(r"^ADAPTER ", modelfile, re.MULTILINE):
            raise UserError.one(
                _where(name),
                "is a base with an adapter, which are two files",
                "Use its base, or merge the adapter into it.",
            )
        found = re.findall(_BLOB, modelfile, re.MULTILINE)
        if reported.get("projector_info") or len(found) > 1:
            raise UserError.one(
                _where(name),
                "has a part for images beside its language model",
                "Use a model of text alone.",
            )
        if not found:
            raise UserError.one(
                _where(name),
                "has no GGUF file in the server's store",
                "Use a GGUF file or the Hugging Face model.",
            )
        file, sha256 = Path(found[0][0]), found[0][1]
        assert self.server is not None
        what = f"is in the store of {self.server.public_address}, which cannot be read here"
        if os.access(file, os.R_OK):
            return file, sha256
        if os.access(file.parent, os.F_OK):
            raise UserError.one(
                _where(name),
                f"{what}: no permission to read {file}",
                f"Copy that file and use it: --set model_to_fine_tune={folder_name(name)}.gguf",
            )
        raise UserError.one(
            _where(name),
            f"{what}: {file.parent} is not on this machine",
            f"Copy {file} from there and use it: --set model_to_fine_tune={folder_name(name)}.gguf",
        )


def _where(name: str) -> str:
    return f"model_to_fine_tune {name}"


def _not_taken(parameters: Mapping[str, list[str]], reported: Mapping[str, Any]) -> tuple[str, ...]:
    """What the server's model has beside its file, its system prompt and its stops."""
    found = [f"{name} {', '.join(values)}" for name, values in sorted(parameters.items())]
    if reported.get("messages"):
        found.append("its first messages")
    return tuple(found)
