"""Build the trainer's images with `docker buildx bake`, and find the one that fits.

Building is the command line's: the SDK has no BuildKit. Nothing is run here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.display import Display
from launcher.locks import uv
from launcher.logged import run_logged
from launcher.project import CACHE, LOCKS, ROOT, lock_file, shown
from trainer.contract.digest import digest_of_file, digest_of_value, files_below
from trainer.contract.errors import UserError
from trainer.contract.manifest import CONTRACT_VERSION

SOURCE_LABEL = "dev.affineur.source"
CONTRACT_LABEL = "dev.affineur.contract"
_TAIL_LINES = 20


@dataclass(frozen=True)
class BuildInputs:
    """What a closed network gives in place of the open one; all of it optional.

    `wheels` is a folder of wheels, `ca` a bundle of certificates (a build secret, in no layer),
    `base` an image in place of the pinned one.
    """

    wheels: Path | None = None
    ca: Path | None = None
    base: str = ""

    @classmethod
    def given(cls, base: str = "", wheels: str = "", ca: str = "") -> BuildInputs:
        """From the flags, or where they are silent from AFFINEUR_BASE_IMAGE, _WHEELS and _CA.

        A closed network is closed for every build, also for those that a run starts by itself.
        """
        base = base or os.environ.get("AFFINEUR_BASE_IMAGE", "")
        wheels = wheels or os.environ.get("AFFINEUR_WHEELS", "")
        ca = ca or os.environ.get("AFFINEUR_CA", "")
        return cls(Path(wheels) if wheels else None, Path(ca) if ca else None, base)


def tag(lock: str) -> str:
    """The local name of a lock's image."""
    return f"affineur/trainer:{lock}"


def source_digest(lock: str) -> str:
    """The digest of all that goes into an image from this project.

    Stands as a label on the image: an image with this label need not be built again.
    """
    sources = [ROOT / "docker" / "trainer.Dockerfile", ROOT / "docker" / "docker-bake.hcl"]
    sources += [lock_file(lock), *_trainer_files()]
    return digest_of_value(
        {path.relative_to(ROOT).as_posix(): digest_of_file(path) for path in sources}
    )


def build(lock: str, inputs: BuildInputs, display: Display) -> str:
    """Build a lock's image into the engine and return its digest (`sha256:...`).

    Raises:
        UserError: no buildx, an input that is not there, or a step that failed.
    """
    # Packing 5 GB costs more than it saves as long as the image stays on this machine.
    output = "type=image,compression=uncompressed,force-compression=true"
    return _bake(lock, inputs, ["--set", f"*.output={output}"], display)


def digest_of_fresh_build(lock: str, inputs: BuildInputs, display: Display) -> str:
    """Build a lock's image from nothing, keep nothing, and return its manifest's digest.

    Two of these agree where the image is reproducible: every date is set to the epoch, and no
    attestation, which would hold the time of the build, is part of what is compared.

    Raises:
        UserError: as `build`.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="image-") as folder:
        packed = "compression=zstd,compression-level=1,force-compression=true"
        output = f"type=oci,dest={folder}/image.tar,rewrite-timestamp=true,{packed}"
        words = ["--no-cache", "--set", f"*.output={output}", f"--allow=fs.write={folder}"]
        return _bake(lock, inputs, words, display)


def buildkit_version() -> str:
    """BuildKit's version, beside which a digest is to be read: others may pack otherwise."""
    shown_by = subprocess.run(
        ["docker", "buildx", "inspect"], capture_output=True, text=True, check=False
    )
    found = re.search(r"BuildKit version:\s*(\S+)", shown_by.stdout)
    return found[1] if found else "unknown"


def _bake(lock: str, inputs: BuildInputs, words: Sequence[str], display: Display) -> str:
    log = CACHE / "logs" / f"build-{lock}.log"
    with tempfile.TemporaryDirectory() as scratch, display.working("image", f"building {lock}"):
        metadata = Path(scratch) / "metadata.json"
        command = [*_command(lock, inputs, Path(scratch), metadata), *words, lock]
        # Fixed dates on every file: the same sources make the same layers.
        surroundings = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
        if run_logged(command, log, surroundings):
            raise _failed(log)
        built = json.loads(metadata.read_text())
    return str(built[lock]["containerimage.digest"])


def _trainer_files() -> list[Path]:
    return [path for path in files_below(ROOT / "trainer") if "__pycache__" not in path.parts]


def _command(lock: str, inputs: BuildInputs, scratch: Path, metadata: Path) -> list[str]:
    empty = scratch / "empty"
    empty.mkdir()
    # A context is a whole folder; the one that uv lies in holds the host's environment.
    tools = scratch / "uv"
    tools.mkdir()
    shutil.copy(uv(), tools / "uv")
    for given in (inputs.wheels, inputs.ca):
        if given is not None and not given.exists():
            raise UserError.one("build", f"{given} is not there")
    wheels = (inputs.wheels or empty).resolve()
    settings = {
        "contexts.uv": tools,
        "contexts.wheels": wheels,
        f"labels.{SOURCE_LABEL}": source_digest(lock),
        "args.CONTRACT": CONTRACT_VERSION,
        # Attestations hold the time of the build.
        "attest": "type=provenance,disabled=true",
    }
    if inputs.base:
        settings["args.BASE"] = inputs.base
    command = ["docker", "buildx", "bake", "--file", "docker/docker-bake.hcl", "--progress=plain"]
    command += ["--metadata-file", str(metadata), f"--allow=fs.read={scratch}"]
    command += [f"--allow=fs.read={wheels}", f"--allow=fs.read={LOCKS}"]
    if inputs.ca:
        ca = inputs.ca.resolve()
        settings["secrets"] = f"id=ca,src={ca}"
        command.append(f"--allow=fs.read={ca.parent}")
    for key, value in settings.items():
        command += ["--set", f"*.{key}={value}"]
    return command


def _failed(log: Path) -> UserError:
    lines = log.read_text(errors="replace").splitlines()
    if any("'buildx' is not a docker command" in line or "unknown flag" in line for line in lines):
        return UserError.one(
            "docker buildx", "is not there", "Install the package docker-buildx-plugin."
        )
    tail = "\n    ".join(lines[-_TAIL_LINES:])
    return UserError.one(shown(log), f"the image could not be built; its last lines:\n    {tail}")
