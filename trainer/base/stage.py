"""Stage `base`: put the requested base into the cache, and record which one it is.

The only stage that may use the network, which a base of the Hub needs and no other. It writes
`model/` and then `base.json`, whose existence means that the folder is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from contract import paths
from contract.base import BaseIdentity, BaseRequest, GgufIdentity
from contract.digest import digest_of_file, digest_of_value, files_below
from contract.paths import StagePaths
from contract.results.base import BaseResult
from trainer.entrypoint import Reporter

# The secret that the launcher gives to this stage, and to no other.
_TOKEN = "HF_TOKEN"


def base(stage_paths: StagePaths, reporter: Reporter, secrets: Mapping[str, str]) -> None:
    """Make `model/` and `base.json` from `request.json`."""
    request = BaseRequest.read(stage_paths.run / paths.BASE_REQUEST)
    folder = stage_paths.output / paths.BASE_MODEL
    revision = gguf = None
    if request.kind == "smoke":
        from trainer.base.smoke import make_smoke_base

        shutil.rmtree(folder, ignore_errors=True)
        make_smoke_base(
            folder,
            on_step=lambda step, steps, loss: reporter.progress(
                "making the smoke base",
                done=step,
                total=steps,
                unit="steps",
                figures={"loss": loss},
            ),
        )
    elif request.kind == "gguf":
        gguf = _read_gguf(request, stage_paths.require("gguf"), folder, reporter)
    else:
        from trainer.base.hub import download

        # Kept across an interruption: the hub's client continues with what is there.
        revision = download(
            request.repository,
            folder,
            revision=request.revision,
            token=secrets.get(_TOKEN),
            reporter=reporter,
        )
        # The client's own notes, by which it continues.
        shutil.rmtree(folder / ".cache", ignore_errors=True)
    files = {
        path.relative_to(folder).as_posix(): digest_of_file(path) for path in files_below(folder)
    }
    identity = BaseIdentity(
        source=request.repository,
        revision=revision,
        digest=digest_of_value(files),
        files=files,
        gguf=gguf,
    )
    identity.write(stage_paths.output / paths.BASE_RECORD)
    reporter.result(BaseResult(identity=identity))


def _read_gguf(request: BaseRequest, file: Path, folder: Path, reporter: Reporter) -> GgufIdentity:
    from trainer.base.gguf import read_gguf

    if request.gguf is None:
        raise LookupError("a request for a GGUF file has to name its digest")
    shutil.rmtree(folder, ignore_errors=True)
    header = read_gguf(
        file,
        request.gguf.sha256,
        folder,
        stops=request.gguf.stops,
        on_tensor=reporter.progress_callback("reading the GGUF file", "tensors"),
        on_file=reporter.progress_callback("writing the base", "files"),
        note=reporter.note,
    )
    return GgufIdentity(
        sha256=request.gguf.sha256,
        architecture=header.architecture,
        weight_type=header.weight_type,
        bits_per_weight=round(header.bits_per_weight, 2),
    )
