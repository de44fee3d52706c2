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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contract.atomic_write import atomic_write
from contract.child_environment import Purpose, child_environment
from contract.digest import digest_of_file, digest_of_value, files_below
from contract.errors import Problem, UserError
from contract.events import Progress
from contract.manifest import CONTRACT_VERSION
from launcher.display import Display
from launcher.project import CACHE, LOCKS, ROOT, lock_file, shown
from launcher.runtime.dependency_locks import uv
from launcher.runtime.file_stamp import changed, stamps
from launcher.runtime.layer_cache import layer_cache
from launcher.runtime.llama_cpp_sources import llama_cpp
from launcher.runtime.llama_cpp_tools import compile_into, tools, tools_digest
from launcher.runtime.logged_process import run_logged
from launcher.runtime.owned_folder import check_ours

SOURCE_LABEL = "dev.affineur.source"
CONTRACT_LABEL = "dev.affineur.contract"
_TAIL_LINES = 20
# BuildKit's plain progress: `#9 [rtx packages 2/2] RUN ...`.
_STEP = re.compile(r"#\d+ \[\S+ (\S+) +(\d+)/(\d+)\]")
# What an exporter has at its place already, and other engines give to the stages there.
BROUGHT_ALONG = ("llama_cpp", "tools")
_EXPORTER = "-exporter"
# The target for the devcontainer, and what its environment holds.
DEV = "dev"
_DEV_LOCKS = ("rtx", "host", "check")


@dataclass(frozen=True)
class BuildInputs:
    """What a closed network gives in place of the open one, and a cache; all of it optional.

    `wheels` is a folder of all wheels, taken in place of the index, `ca` a bundle of certificates
    (a build secret, in no layer), `base` an image in place of the pinned one, `cache` a folder that
    BuildKit's layers are read from and written to, for machines that do not last.
    """

    wheels: Path | None = None
    ca: Path | None = None
    base: str = ""
    cache: Path | None = None

    @classmethod
    def given(
        cls, *, base: str = "", wheels: str = "", ca: str = "", cache: str = ""
    ) -> BuildInputs:
        """From the flags, or where they are silent from AFFINEUR_BASE_IMAGE, _WHEELS and _CA.

        A closed network is closed for every build, also for those that a run starts by itself.

        Raises:
            UserError: a file or folder that is not there, or a cache that is not ours.
        """
        base = base or os.environ.get("AFFINEUR_BASE_IMAGE", "")
        wheels = wheels or os.environ.get("AFFINEUR_WHEELS", "")
        ca = ca or os.environ.get("AFFINEUR_CA", "")
        for flag, place in (("--wheels", wheels), ("--ca", ca)):
            if place and not Path(place).exists():
                raise UserError.one(flag, f"{place} does not exist")
        if cache:
            check_ours(Path(cache).resolve(), "--cache")
        return cls(
            Path(wheels).resolve() if wheels else None,
            Path(ca).resolve() if ca else None,
            base,
            Path(cache).resolve() if cache else None,
        )


def exporter(lock: str) -> str:
    """The target that stands on the lock's trainer and has llama.cpp's converters and tools."""
    return f"{lock}{_EXPORTER}"


def trainer(target: str) -> str:
    """The target that this one stands on, or itself."""
    return target.removesuffix(_EXPORTER)


def tag(target: str) -> str:
    """The local name of a target's image."""
    kind = "exporter" if target.endswith(_EXPORTER) else "trainer"
    return f"affineur/{kind}:{trainer(target)}"


def source_digest(target: str, inputs: BuildInputs | None = None) -> str:
    """The digest of all that goes into a target's image: this project's files, and what it stands
    on where that is given (by default, as a run would give it).

    Stands as a label on the image: an image with this label need not be built again.
    """
    inputs = inputs or BuildInputs.given()
    digests = {path.relative_to(ROOT).as_posix(): digest_of_file(path) for path in _sources(target)}
    if target.endswith(_EXPORTER):
        digests["tools"] = tools_digest()
        digests["exporter"] = digest_of_file(ROOT / "docker" / "exporter.Dockerfile")
    if inputs.base:
        digests["base"] = _base_identity(inputs.base)
    return digest_of_value(digests)


def _sources(target: str) -> list[Path]:
    sources = [ROOT / "docker" / "trainer.Dockerfile", ROOT / "docker" / "docker-bake.hcl"]
    if target == DEV:
        return sources + [lock_file(name) for name in _DEV_LOCKS]
    return [*sources, lock_file(trainer(target)), *_trainer_files()]


def build(target: str, inputs: BuildInputs, display: Display) -> str:
    """Build a target's image into the engine and return its digest (`sha256:...`).

    Raises:
        UserError: no buildx, a step that failed, or an edit of the sources meanwhile.
    """
    with _unedited(target):
        return _build(target, inputs, display)


@contextmanager
def _unedited(target: str) -> Iterator[None]:
    """Take the tag off the image that is built in the block, where its sources were edited there:
    the label says which they were at the start, also where the edit is put back.
    """
    before = stamps(_sources(target))
    yield
    if found := changed(before):
        subprocess.run(
            ["docker", "image", "rm", "--force", tag(target)],
            env=child_environment(Purpose.DOCKER),
            capture_output=True,
            check=False,
        )
        raise UserError(
            [
                Problem(
                    where=shown(path),
                    what=f"was changed while the image {target} was built from it",
                    remedy="The image is not used; run the same command again.",
                )
                for path in found
            ]
        )


def _build(target: str, inputs: BuildInputs, display: Display) -> str:
    with layer_cache(inputs.cache) as words:
        digest = _bake(target, inputs, words=words, compiled=tools, display=display)
    atomic_write(_builder_file(digest), builder() + "\n")
    return digest


def digest_of_fresh_build(target: str, inputs: BuildInputs, display: Display) -> str:
    """Build a target's image from nothing, keep nothing, and return its digest.

    It is `build`'s digest: every file of our layers bears one date, and no attestation, which
    would hold the time of the build, is part of the image.

    Raises:
        UserError: as `build`.
    """
    scratch = f"affineur/check:{target}"
    words = ["--no-cache", "--set", f"{_bake_target(target)}.tags={scratch}"]
    with tempfile.TemporaryDirectory() as folder:

        def compiled_anew(display: Display) -> Path:
            compile_into(Path(folder) / "tools", display)
            return Path(folder) / "tools"

        try:
            return _bake(target, inputs, words=words, compiled=compiled_anew, display=display)
        finally:
            remove = ["docker", "image", "rm", "--force", scratch]
            _said(*remove)


def builder() -> str:
    """What builds here, beside which a digest is to be read: others may pack otherwise."""
    described = _said("docker", "buildx", "inspect")
    found = re.search(r"BuildKit version:\s*(\S+)", described)
    # Debian's engine does not say which BuildKit it holds.
    engine = _said("docker", "version", "--format", "{{.Server.Version}}").strip()
    store = _said("docker", "info", "--format", "{{.Driver}}").strip()
    return f"BuildKit {found[1] if found else 'unknown'}, engine {engine}, store {store}"


def built_by(digest: str) -> str:
    """What built the image of this digest, where it was built from this clone."""
    file = _builder_file(digest)
    return file.read_text(encoding="utf-8").strip() if file.exists() else "unknown"


def check_buildx() -> str:
    """The version of buildx.

    Raises:
        UserError: there is no docker command, or no buildx beside it.
    """
    if shutil.which("docker") is None:
        raise UserError.one(
            "docker buildx",
            "the docker command was not found",
            "Install docker-ce-cli and docker-buildx-plugin (Debian: docker-cli, docker-buildx), "
            "or train with --engine local.",
        )
    found = re.search(r"v?\d+\.\d+\.\d+\S*", _said("docker", "buildx", "version"))
    if found is None:
        raise UserError.one(
            "docker buildx",
            "is not installed",
            "Install docker-buildx-plugin (Debian: docker-buildx), or train with --engine local.",
        )
    return found[0]


def _base_identity(base: str) -> str:
    """What an image given as the base is: a tag may be of another one tomorrow."""
    if "@sha256:" in base:
        return base
    known = ""
    if shutil.which("docker") is not None:
        known = _said("docker", "image", "inspect", "--format", "{{.Id}}", base).strip()
    # One that the engine does not have is pulled by the build, and its name is all that is known.
    return f"{base} {known}".strip()


def _said(*command: str) -> str:
    environment = child_environment(Purpose.DOCKER)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stdout


def _builder_file(digest: str) -> Path:
    return CACHE / "images" / f"{digest.rpartition(':')[2]}.txt"


def _bake(
    target: str,
    inputs: BuildInputs,
    *,
    words: Sequence[str],
    compiled: Callable[[Display], Path],
    display: Display,
) -> str:
    check_buildx()
    contexts = {}
    if target.endswith(_EXPORTER):
        contexts = {"llama_cpp": llama_cpp(display), "tools": compiled(display)}
    log = CACHE / "logs" / f"build-{target}.log"
    with (
        tempfile.TemporaryDirectory() as scratch,
        display.working("image", f"building {target}") as line,
    ):
        metadata = Path(scratch) / "metadata.json"
        command = _command(
            target, inputs, contexts=contexts, scratch=Path(scratch), metadata=metadata
        )
        command += [*words, _bake_target(target)]
        # Fixed dates on the image itself too: the same sources make the same image.
        environment = child_environment(Purpose.DOCKER, LOCK=_lock(target), SOURCE_DATE_EPOCH="0")

        def on_line(text: str) -> None:
            if step := _STEP.match(text):
                doing, done, total = step.groups()
                line.on_event(Progress(doing=doing, done=int(done), total=int(total), unit="steps"))

        if run_logged(command, log, environment=environment, on_line=on_line):
            raise _failed(log, inputs.cache)
        built = json.loads(metadata.read_bytes())
    return str(built[_bake_target(target)]["containerimage.digest"])


def _bake_target(target: str) -> str:
    """The target in docker-bake.hcl, which has one of each kind for all locks."""
    if target == DEV:
        return DEV
    return "exporter" if target.endswith(_EXPORTER) else "trainer"


def _lock(target: str) -> str:
    return _DEV_LOCKS[0] if target == DEV else trainer(target)


def _trainer_files() -> list[Path]:
    return [
        path
        for wing in ("contract", "trainer")
        for path in files_below(ROOT / wing)
        if "__pycache__" not in path.parts
    ]


def _command(
    target: str,
    inputs: BuildInputs,
    *,
    contexts: Mapping[str, Path],
    scratch: Path,
    metadata: Path,
) -> list[str]:
    empty = scratch / "empty"
    empty.mkdir()
    # A context is a whole folder; the one that uv lies in holds the host's environment.
    folder_of_uv = scratch / "uv"
    folder_of_uv.mkdir()
    shutil.copy(uv(), folder_of_uv / "uv")
    wheels = inputs.wheels or empty
    baked, below = _bake_target(target), _bake_target(trainer(target))
    settings = {
        f"{below}.contexts.uv": folder_of_uv,
        f"{below}.contexts.wheels": wheels,
        f"{below}.labels.{SOURCE_LABEL}": source_digest(trainer(target), inputs),
        f"{baked}.labels.{SOURCE_LABEL}": source_digest(target, inputs),
        f"{below}.args.CONTRACT": CONTRACT_VERSION,
        # Attestations hold the time of the build.
        "*.attest": "type=provenance,disabled=true",
        # Packing 8 GB costs more than it saves as long as the image stays on this machine.
        f"{baked}.output": "type=image,compression=uncompressed,force-compression=true",
        **{f"{baked}.contexts.{name}": folder for name, folder in contexts.items()},
    }
    if inputs.base:
        settings[f"{below}.args.BASE"] = inputs.base
    command = ["docker", "buildx", "bake", "--file", "docker/docker-bake.hcl", "--progress=plain"]
    command += ["--metadata-file", str(metadata), f"--allow=fs.read={scratch}"]
    command += [f"--allow=fs.read={wheels}", f"--allow=fs.read={LOCKS}"]
    command += [f"--allow=fs.read={folder}" for folder in contexts.values()]
    if inputs.ca:
        settings[f"{below}.secrets"] = f"id=ca,src={inputs.ca}"
        command.append(f"--allow=fs.read={inputs.ca.parent}")
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    return command


def _failed(log: Path, cache: Path | None) -> UserError:
    text = log.read_text(encoding="utf-8", errors="replace")
    if "no space left on device" in text:
        # The layers to keep are written by buildx and not by the engine, maybe to another disk.
        if cache is not None and re.search(rf"{re.escape(str(cache))}\S*: no space left", text):
            return UserError.one(
                f"--cache {cache}",
                "the disk of this folder is full",
                "Free some space there, or build without --cache.",
            )
        return UserError.one(
            shown(log),
            "the engine's disk is full",
            "Free some space (docker system prune) and try again.",
        )
    # What the failed step said, without BuildKit's own account of it below.
    failed = re.search(r"^(#\d+) ERROR", text, re.MULTILINE)
    step = rf"^{failed[1]} [\d.]+ (.*)$" if failed else r"^(.*)$"
    tail = "\n    ".join(re.findall(step, text, re.MULTILINE)[-_TAIL_LINES:])
    return UserError.one(
        shown(log),
        "the image could not be built",
        f"Check the network, or train with --engine local. Last lines of output:\n    {tail}",
    )
