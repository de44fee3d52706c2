"""What the project itself is made from, and whether it is pinned: locks, Dockerfiles, workflows,
the devcontainer. It reads files alone, and knows nothing of recipes and runs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from contract.digest import digest_of_file
from contract.errors import UserError
from launcher.attest.findings import Findings, is_commit
from launcher.attest.requirements import requirements
from launcher.project import ROOT
from launcher.runtime import images

# Build contexts that the launcher gives: folders of this machine, whose content is locked by hash.
_OUR_CONTEXTS = ("uv", "wheels", *images.BROUGHT_ALONG)
_FEATURE_REMEDY = "Leave it out, or name it by digest: NAME@sha256:..."


def audit_project(findings: Findings, root: Path = ROOT) -> None:
    """Look at everything that every run, image and check of this project is made from."""
    for lock in sorted((root / "docker" / "locks").glob("*.lock")):
        audit_lock(findings, lock, root)
    own = _bake_targets(root)
    for dockerfile in sorted((root / "docker").glob("*Dockerfile")):
        _audit_dockerfile(findings, dockerfile, root, own)
    for workflow in sorted((root / ".github" / "workflows").glob("*.y*ml")):
        _audit_workflow(findings, workflow, root)
    for devcontainer in sorted((root / ".devcontainer").rglob("devcontainer.json")):
        _audit_devcontainer(findings, devcontainer, root, own)


def audit_lock(findings: Findings, lock: Path, root: Path = ROOT) -> None:
    """Look for requirements without a version or a hash."""
    name = lock.relative_to(root).as_posix()
    loose = [entry for entry in requirements(lock.read_text("utf-8")) if not entry.sha256]
    for entry in loose:
        what = f"{entry.text} has no hash"
        if entry.text.startswith("-"):
            what = f"{entry.text} is an option of the installer, and no package that is locked"
        findings.unpinned(name, what, "Compile the lock anew: ./invoke lock.")
    if not loose:
        findings.pinned(name, f"sha256:{digest_of_file(lock)}")


def _bake_targets(root: Path) -> set[str]:
    """Named contexts in the bake file that are targets of its own."""
    bake = root / "docker" / "docker-bake.hcl"
    text = bake.read_text("utf-8") if bake.is_file() else ""
    return set(re.findall(r'(\w+)\s*=\s*"target:', text))


def _audit_dockerfile(findings: Findings, dockerfile: Path, root: Path, own: set[str]) -> None:
    text = re.sub(r"\\\n", " ", dockerfile.read_text("utf-8"))
    where = dockerfile.relative_to(root).as_posix()
    given = dict(re.findall(r"^ARG\s+(\w+)=(\S+)", text, re.MULTILINE))
    stages = {name.lower() for name in re.findall(r"^FROM\s.*?\sAS\s+(\S+)", text, re.M | re.I)}
    known = {*stages, *own, *_OUR_CONTEXTS, "scratch"}
    used = re.findall(r"^FROM\s+(?:--\S+\s+)*(\S+)", text, re.MULTILINE | re.IGNORECASE)
    used += re.findall(r"^COPY\s.*?--from=(\S+)", text, re.MULTILINE | re.IGNORECASE)
    used += re.findall(r"--mount=\S*?\bfrom=([^,\s]+)", text)
    used += re.findall(r"^#\s*syntax\s*=\s*(\S+)", text, re.MULTILINE)
    for reference in used:
        image = re.sub(r"\$\{?(\w+)\}?", lambda name: given.get(name[1], name[0]), reference)
        if image.lower() not in known and not image.isdecimal():
            findings.image(image, where=where)
    for source in re.findall(r"^ADD\s+(.*?)$", text, re.MULTILINE | re.IGNORECASE):
        if "://" in source and "--checksum=sha256:" not in source:
            findings.unpinned(
                where, f"ADD {source} fetches what no digest pins", "Add --checksum=sha256:..."
            )


def _audit_workflow(findings: Findings, workflow: Path, root: Path) -> None:
    text = workflow.read_text("utf-8")
    where = workflow.relative_to(root).as_posix()
    for used in re.findall(r"^\s*-?\s*uses:[ \t]*[\"']?([^\s\"'#]+)", text, re.MULTILINE):
        action, _, revision = used.partition("@")
        if used.startswith("docker://"):
            findings.image(used.removeprefix("docker://"), where=where)
        elif is_commit(revision):
            findings.pinned(f"action {action}", revision)
        elif not used.startswith("./"):
            findings.unpinned(
                where,
                f"the action {used} is named by a tag or a branch, and not by its commit",
                f"Name it by commit: {action}@<40 digits>",
            )
    for image in re.findall(r"^\s*-?\s*(?:image|container):[ \t]*[\"']?(\w[^\s\"'#]*)", text, re.M):
        findings.image(image, where=where)


def _audit_devcontainer(findings: Findings, file: Path, root: Path, own: set[str]) -> None:
    settings = _without_comments(file, root)
    where = file.relative_to(root).as_posix()
    image = settings.get("image")
    if image == images.tag(images.DEV):
        findings.pinned(f"image {image}", "built from docker/, from what is pinned there")
    elif image is not None:
        findings.image(str(image), where=where)
    dockerfile = settings.get("dockerFile") or (settings.get("build") or {}).get("dockerfile")
    if dockerfile and (path := file.parent / dockerfile).is_file():
        _audit_dockerfile(findings, path.resolve(), root, own)
    for feature in settings.get("features") or {}:
        if re.search(r"@sha256:[0-9a-f]{64}$", feature):
            findings.pinned(f"feature {feature.partition('@')[0]}", feature.partition("@")[2])
        else:
            findings.unpinned(
                where, f"the feature {feature} is fetched by a tag, not by digest", _FEATURE_REMEDY
            )


def _without_comments(file: Path, root: Path) -> dict[str, Any]:
    text = re.sub(r"^\s*//.*$", "", file.read_text("utf-8"), flags=re.MULTILINE)
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise UserError.one(
            file.relative_to(root).as_posix(),
            f"cannot be read as JSON with lines of comments: {error}",
            "Its other features are not known here; write it without them.",
        ) from None
    return settings if isinstance(settings, dict) else {}
