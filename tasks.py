"""The `./invoke` commands: parse flags, make one launcher call, print. No logic here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from invoke import Context, Exit, task

from contract.metrics import METRICS

_ROOT = Path(__file__).resolve().parent

# Started by another installation of invoke: hand over to the project's environment, once.
_by_invoke = Path(sys.argv[0]).name in ("invoke", "inv") or sys.argv[0].endswith(
    "invoke/__main__.py"
)
_handed_over = os.environ.pop("AFFINEUR_HANDED_OVER", "")
if _by_invoke and not _handed_over and Path(sys.prefix).resolve() != (_ROOT / ".venv").resolve():
    os.environ["AFFINEUR_HANDED_OVER"] = "yes"
    os.execv(_ROOT / "invoke", ["./invoke", *sys.argv[1:]])

_PROFILES = ", ".join(sorted(path.stem for path in (_ROOT / "configs/profiles").glob("*.yaml")))
_PROFILE = f"{_PROFILES}: a file in configs/profiles/"
_AUTO = f"auto (the one that fits this machine's GPU, or cpu), or {_PROFILE}"
_CONFIG = (
    "JSON or YAML configuration file, with our keys or those of TRL, LLaMA-Factory or Axolotl "
    "(default: the one that the profile names)"
)
_SET = "key=value, overrides the configuration; repeatable"
_DATA = "dataset to use instead of the configured one (configs/README.md lists the formats)"
_QUIET = "print only the result"
_OLLAMA = (
    "host (the server at OLLAMA_HOST, default) or container (started in Docker for this command)"
)
_POLICY = "gate policy to use instead of configs/gate.yaml"
_RUN = "run key, or the start of one (default: the run that was brought up to date last)"
_NAMED_RUN = "a model's name, NAME@KEY, or a run's folder or manifest, also of another clone"
_JSON = "print JSON, for programs"
_ENGINE = "where the stages run: auto, local or docker"
_FLAGS = {"profile": _AUTO, "config": _CONFIG, "set": _SET, "data": _DATA}


@task(
    iterable=["set"],
    help={
        **_FLAGS,
        "engine": _ENGINE,
        "memory": "memory limit for each stage's container, such as 12g (default: none)",
        "ollama": "where to import the model: auto (OLLAMA_HOST, if a server is running), "
        "host (fail without one), container (started in Docker for this command) or none",
        "replace": "overwrite a model with the same name in Ollama that was not imported by us",
        "quiet": _QUIET,
    },
)
def train(
    _context: Context,
    profile: str = "auto",
    config: str = "",
    set: list[str] | None = None,
    data: str = "",
    engine: str = "auto",
    memory: str = "",
    ollama: str = "auto",
    replace: bool = False,
    quiet: bool = False,
) -> None:
    """Fine-tune a model, convert it to GGUF and import it into Ollama.

    Examples:
      ./invoke train --profile smoke
      ./invoke train --config configs/training_config.json
      ./invoke train --profile rtx --engine docker --memory 24g
      ./invoke train --profile smoke --ollama container
      ./invoke train --profile smoke --data my.csv --set epochs=2 \\
          --set columns.instruction=question --set columns.output=answer
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.train(
            profile=profile,
            config=config,
            settings=set or [],
            data=data,
            engine=engine,
            memory=memory,
            ollama=ollama,
            replace=replace,
            quiet=quiet,
        )


@task(
    name="import",
    help={
        "model": "output_model_name of a finished run",
        "run": _RUN,
        "ollama": _OLLAMA,
        "replace": "overwrite a model with the same name that was not imported by us",
    },
)
def import_model(
    _context: Context, model: str, run: str = "", ollama: str = "host", replace: bool = False
) -> None:
    """Import a finished run's model into an Ollama server.

    Examples:
      ./invoke import --model affineur-smoke
      ./invoke import --model affineur-smoke --ollama container
      OLLAMA_HOST=gpu-box:11434 ./invoke import --model qwen2.5-sfd-analyzer
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.import_model(model, run=run, ollama=ollama, replace=replace)


@task(
    help={
        "model": "output_model_name of a finished run",
        "run": _RUN,
        "ollama": _OLLAMA,
    }
)
def verify(_context: Context, model: str, run: str = "", ollama: str = "host") -> None:
    """Verify that a model in Ollama is the one that was trained.

    Examples:
      ./invoke verify --model affineur-smoke
      ./invoke verify --model affineur-smoke --ollama container
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.verify(model, run=run, ollama=ollama)


@task(
    help={
        "model": "output_model_name of a finished run, or any served model with --data",
        "base": "served model to compare with (default: the base that the run started from)",
        "data": "evaluation rows: a file, or a name in data/evaluation/ (default: the run's own)",
        "skills": "folder of general-skill sets, or none (default: data/evaluation/skills)",
        "metric": f"{', '.join(METRICS)} "
        "(default: the profile's, or else the first of them that fits the rows)",
        "run": _RUN,
        "ollama": "which server answers: auto (Ollama if it has the model, or else "
        "llama-server), host, container or none (llama-server)",
        "engine": _ENGINE,
        "parallel": "number of concurrent requests",
        "limit": "most rows of the task and of each skill set, as a fixed sample (default: all)",
        "drop-leaked": "drop rows that were trained on (default: refuse the evaluation)",
        "quiet": _QUIET,
    }
)
def evaluate(
    _context: Context,
    model: str,
    base: str = "",
    data: str = "",
    skills: str = "",
    metric: str = "",
    run: str = "",
    ollama: str = "auto",
    engine: str = "auto",
    parallel: str = "4",
    limit: str = "",
    drop_leaked: bool = False,
    quiet: bool = False,
) -> None:
    """Score a served model and its base on the task and on skills.

    Examples:
      ./invoke evaluate --model affineur-smoke
      ./invoke evaluate --model affineur-smoke --skills none
      ./invoke evaluate --model affineur-smoke --limit 20
      ./invoke evaluate --model affineur-smoke --base qwen2.5:1.5b-instruct
      ./invoke evaluate --model qwen2.5:1.5b-instruct --data rows.csv
    """
    with _exit_on_error():
        from launcher.cli import commands
        from launcher.evaluate.evaluation import EvaluationRequest, parallel_requests
        from launcher.pipeline.finished_run import canonical_name

        request = EvaluationRequest(
            model=canonical_name(model),
            base=base,
            data=data,
            skills=skills,
            metric=metric,
            parallel=parallel_requests(parallel),
            limit=limit,
            drop_leaked=drop_leaked,
        )
        commands.evaluate(request, run=run, ollama=ollama, engine=engine, quiet=quiet)


@task(
    help={
        "model": "output_model_name of a finished run",
        "run": _RUN,
        "output": "file or folder to write it to (default: data/packages/NAME-RUN.zip)",
        "oci": "write an OCI artifact (a folder, NAME-RUN.oci) instead of a zip, as registries, "
        "ORAS and Docker's model tools take it",
        "push": "push that artifact to a registry as HOST/NAME:TAG, logged in by docker login",
    }
)
def package(
    _context: Context,
    model: str,
    run: str = "",
    output: str = "",
    oci: bool = False,
    push: str = "",
) -> None:
    """Put a model, its adapter and its records into one zip, for a machine without this project.

    Examples:
      ./invoke package --model affineur-smoke
      ./invoke package --model affineur-smoke --output ~/Downloads
      ./invoke package --model affineur-smoke --push registry.example.org/me/smoke:1.0
    """
    with _exit_on_error():
        from launcher.cli import run_commands

        run_commands.package(model, run=run, output=output, oci=oci, push=push)


@task(
    positional=["run"],
    help={
        "run": _NAMED_RUN,
        "output": "file or folder to write it to (default: report.html in the run's folder)",
        "language": "en (default) or fr",
    },
)
def report(_context: Context, run: str, output: str = "", language: str = "en") -> None:
    """Write a finished run's report: one HTML file that loads nothing, for any browser.

    Examples:
      ./invoke report affineur-smoke
      ./invoke report affineur-demo --language fr --output ~/Documents
    """
    with _exit_on_error():
        from launcher.cli import run_commands

        run_commands.report_of(run, output=output, language=language)


@task(
    positional=["run"],
    help={
        "run": "a model's name, NAME@KEY, a run's folder or its manifest, also another clone's",
        "into": "free folder to rebuild it in (default: data/reproduced/NAME-KEY)",
        "data": "where the dataset lies, if not where the run read it",
        "evaluation": "where the evaluation set lies, if not where the run read it",
        "base": "where the base lies, if not where the run read it",
        "engine": _ENGINE,
        "with-this-code": "use this clone's code and locks where they are not those of the run",
        "json": "file to write the comparison to as well (always: reproduction.json in the folder)",
    },
)
def reproduce(
    _context: Context,
    run: str,
    into: str = "",
    data: str = "",
    evaluation: str = "",
    base: str = "",
    engine: str = "auto",
    with_this_code: bool = False,
    json: str = "",
) -> None:
    """Rebuild a run from its manifest alone and compare each file: exit code 0 or 3.

    Examples:
      ./invoke reproduce affineur-smoke
      ./invoke reproduce ../other-clone/data/models/affineur-smoke/0123456789ab/manifest.json
      ./invoke reproduce affineur-smoke --data ~/moved.jsonl --into /tmp/rebuilt
    """
    with _exit_on_error():
        from launcher.cli import run_commands
        from launcher.project import user_path
        from launcher.reproduce.recorded_inputs import GivenPlaces
        from launcher.reproduce.reproduction import ReproductionRequest

        request = ReproductionRequest(
            into=user_path(into, "--into") if into else None,
            given=GivenPlaces(data=data, evaluation=evaluation, base=base),
            with_this_code=with_this_code,
        )
        run_commands.reproduce(run, request, engine=engine, json=json)


@task(help={"model": "list the runs of this model alone", "json": _JSON})
def runs(_context: Context, model: str = "", json: bool = False) -> None:
    """List the runs here: state, size, rows, losses, the gate's decision, promoted roles.

    Examples:
      ./invoke runs
      ./invoke runs --model affineur-smoke --json
    """
    with _exit_on_error():
        from launcher.cli import run_commands

        run_commands.runs(model, as_json=json)


@task(
    help={
        "a": _NAMED_RUN,
        "b": _NAMED_RUN,
        "json": _JSON,
        "output": "file or folder to write it to as an HTML page as well",
        "language": "of the page: en (default) or fr",
    }
)
def compare(
    _context: Context, a: str, b: str, json: bool = False, output: str = "", language: str = "en"
) -> None:
    """Compare two runs: recipe, inputs, rows, results, and the answers that changed.

    Examples:
      ./invoke compare affineur-smoke@c146 affineur-smoke
      ./invoke compare affineur-smoke@c146 affineur-smoke --output comparison.html
      ./invoke compare affineur-demo ../other-clone/data/models/affineur-demo/12fc523e7244
    """
    with _exit_on_error():
        from launcher.cli import run_commands

        run_commands.compare(a, b, as_json=json, output=output, language=language)


@task(
    help={
        "model": "look at the runs of this model alone",
        "yes": "remove what is listed, without asking",
    }
)
def clean(_context: Context, model: str = "", yes: bool = False) -> None:
    """Say which runs can go and how much that is; remove them with --yes.

    Older finished runs, unfinished ones and what killed launchers left. What is promoted, a model's
    latest finished run, and what is in use always stay.

    Examples:
      ./invoke clean
      ./invoke clean --model affineur-smoke --yes
    """
    with _exit_on_error():
        from launcher.cli import run_commands

        run_commands.clean(model, yes=yes)


@task(
    help={
        "model": "a model that the server has",
        "beside": "another one to ask the same, or base: what the model's run was trained from",
        "ollama": _OLLAMA,
        "engine": _ENGINE + "; for --beside base, where it has to be converted first",
    }
)
def chat(
    _context: Context, model: str, beside: str = "", ollama: str = "host", engine: str = "auto"
) -> None:
    """Ask a served model in the terminal, and another one beside it.

    Examples:
      ./invoke chat --model affineur-smoke
      ./invoke chat --model affineur-smoke --beside base
      ./invoke chat --model affineur-demo --beside smollm2:135m < questions.txt
    """
    with _exit_on_error():
        from launcher.cli import run_commands

        run_commands.chat(model, beside=beside, ollama=ollama, engine=engine)


@task(
    help={
        "model": "output_model_name of an evaluated run",
        "run": _RUN,
        "policy": _POLICY,
    }
)
def gate(_context: Context, model: str, run: str = "", policy: str = "") -> None:
    """Decide whether an evaluated model may ship: exit code 0 or 3.

    Example:
      ./invoke gate --model affineur-smoke
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.gate(model, run=run, policy=policy)


@task(
    help={
        "role": "a role in configs/models.yaml",
        "model": "output_model_name of an evaluated run that the server has",
        "run": _RUN,
        "policy": _POLICY,
        "override": "reason for promoting a model that the gate refused; logged",
        "ollama": _OLLAMA,
        "env-file": "an application's .env file to write the adapter's path into",
        "env-key": "the variable in that file",
    }
)
def promote(
    _context: Context,
    role: str,
    model: str,
    run: str = "",
    policy: str = "",
    override: str = "",
    ollama: str = "host",
    env_file: str = "",
    env_key: str = "",
) -> None:
    """Point a role at a model that passes the gate.

    Examples:
      ./invoke promote --role sfd_analyzer --model affineur-smoke
      ./invoke promote --role sfd_analyzer --model affineur-smoke \\
          --env-file ../app/.env --env-key RAISE_LORA_PATH
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.promote(
            model,
            role=role,
            run=run,
            policy=policy,
            override=override,
            ollama=ollama,
            env_file=env_file,
            env_key=env_key,
        )


@task(help={"role": "a role in configs/models.yaml"})
def rollback(_context: Context, role: str) -> None:
    """Undo the last promotion of a role.

    Example:
      ./invoke rollback --role sfd_analyzer
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.rollback(role)


@task(iterable=["set"], help={**_FLAGS, "engine": _ENGINE})
def plan(
    _context: Context,
    profile: str = "auto",
    config: str = "",
    set: list[str] | None = None,
    data: str = "",
    engine: str = "auto",
) -> None:
    """Print what `train` would do with the same flags, and what would end it; train nothing.

    Example:
      ./invoke plan --profile smoke --set epochs=2
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.plan(profile=profile, config=config, settings=set or [], data=data, engine=engine)


@task(
    iterable=["set"],
    help={
        "run": f"{_NAMED_RUN} (default: what `train` would run with these flags)",
        **_FLAGS,
        "engine": _ENGINE,
        "ollama": "as for train: with container, the server's image is an input as well",
        "bom": "with --run: file to write its bill of materials to (CycloneDX 1.6, JSON)",
        "json": "print all inputs, pinned or not, as JSON",
    },
)
def audit(
    _context: Context,
    run: str = "",
    profile: str = "auto",
    config: str = "",
    set: list[str] | None = None,
    data: str = "",
    engine: str = "auto",
    ollama: str = "auto",
    bom: str = "",
    json: bool = False,
) -> None:
    """List every input that is not pinned by digest; exit code 3 where there is one.

    Examples:
      ./invoke audit --profile smoke
      ./invoke audit --run affineur-smoke --bom affineur-smoke.cdx.json
    """
    with _exit_on_error():
        from launcher.cli import commands, run_commands

        if run:
            run_commands.audit_run(run, bom=bom, as_json=json)
            return
        commands.audit(
            profile=profile,
            config=config,
            settings=set or [],
            data=data,
            engine=engine,
            ollama=ollama,
            bom=bom,
            as_json=json,
        )


@task(
    name="make-key",
    positional=["file"],
    help={"file": "the private key, which only you may read; the public one is FILE.pub"},
)
def make_key(_context: Context, file: str) -> None:
    """Make a key pair for `attest`. AFFINEUR_KEY_PASSPHRASE, or what you type, encrypts it.

    Example:
      ./invoke make-key ~/affineur.key
    """
    with _exit_on_error():
        from launcher.cli import run_commands

        run_commands.make_key(file)


@task(
    positional=["run"],
    help={
        "run": _NAMED_RUN,
        "key": "private key in PEM form: ECDSA on P-256 (as make-key makes it), or Ed25519",
        "output": "file to write the signed statement to (default: in the run's folder)",
    },
)
def attest(_context: Context, run: str, key: str, output: str = "") -> None:
    """Sign a statement of how a run's model was made, and the model's files.

    Examples:
      ./invoke attest affineur-smoke --key ~/affineur.key
      ./invoke attest affineur-smoke@1a2b3c --key ~/affineur.key --output provenance.intoto.jsonl
    """
    with _exit_on_error():
        from launcher.cli import run_commands

        run_commands.attest(run, key=key, output=output)


@task(
    name="verify-attestation",
    positional=["run"],
    help={
        "run": f"{_NAMED_RUN}, or the file of a signed statement",
        "key": "public key in PEM form of the one whom you trust",
    },
)
def verify_attestation(_context: Context, run: str, key: str) -> None:
    """Check a signed statement and every file that it is of, offline; exit code 3 where it fails.

    Example:
      ./invoke verify-attestation affineur-smoke --key ~/affineur.key.pub
    """
    with _exit_on_error():
        from launcher.cli import run_commands

        run_commands.verify_attestation(run, key=key)


@task(
    iterable=["set"],
    help={**_FLAGS, "engine": _ENGINE, "quiet": _QUIET},
)
def data(
    _context: Context,
    data: str = "",
    profile: str = "auto",
    config: str = "",
    set: list[str] | None = None,
    engine: str = "auto",
    quiet: bool = False,
) -> None:
    """Report on a dataset: rows, token lengths, truncation, errors.

    Examples:
      ./invoke data --data data/training/smoke.jsonl --profile smoke
      ./invoke data --data export.csv \\
          --set columns.instruction=question --set columns.output=answer
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.data(
            profile=profile,
            config=config,
            settings=set or [],
            data=data,
            engine=engine,
            quiet=quiet,
        )


@task(
    help={
        "profile": _PROFILE,
        "base-image": "base image to use instead of the pinned one, if its registry is unreachable",
        "wheels": "folder with all wheels of the lock, used instead of the package index",
        "ca": "CA bundle for reaching the package index; not stored in any layer",
        "cache": "folder of its own for cached layers, for ephemeral machines",
        "dev": "build the devcontainer's image instead of a profile's",
        "exporter": "build the profile's image with llama.cpp's converters and tools",
        "tools": "compile only llama.cpp's tools, for the local engine, and print their folder",
        "check": "build twice from scratch, keep neither, and compare the digests",
    }
)
def build(
    _context: Context,
    profile: str = "rtx",
    base_image: str = "",
    wheels: str = "",
    ca: str = "",
    cache: str = "",
    dev: bool = False,
    exporter: bool = False,
    tools: bool = False,
    check: bool = False,
) -> None:
    """Build a profile's image with docker buildx bake.

    Examples:
      ./invoke build --profile rtx
      ./invoke build --profile rtx --exporter
      ./invoke build --profile rtx --check
      ./invoke build --profile rtx --ca /etc/ssl/certs/ca-certificates.crt
    """
    with _exit_on_error():
        from launcher.cli import commands
        from launcher.runtime import images

        if tools:
            commands.build_tools()
            return
        inputs = images.BuildInputs.given(base=base_image, wheels=wheels, ca=ca, cache=cache)
        commands.build(profile=profile, dev=dev, exporter=exporter, inputs=inputs, check=check)


@task(
    help={
        "profile": _AUTO,
        "engine": "auto, local or docker (with docker, a missing engine is a failure)",
    }
)
def doctor(_context: Context, profile: str = "auto", engine: str = "auto") -> None:
    """Check this machine: engine, disk, GPU, driver, Ollama.

    Examples:
      ./invoke doctor
      ./invoke doctor --profile smoke --engine docker
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.doctor(profile, engine)


@task(
    help={
        "only": "test file or folder (default: all that need neither Docker, a GPU nor Ollama)",
        "match": "run only tests whose names match this expression (pytest -k)",
        "fast": "run only tests that train, compile and serve nothing",
        "slow": "run only the others of them, most of which train or compile",
        "gpu": "run the tests that need a GPU; they fail without one",
        "container": "run the tests that need a Docker engine; they fail without one",
        "serving": "run the tests that need Ollama; they fail without it",
        "browser": "run the tests that need Chromium; they fail without it",
        "faults": "run the fault campaign (hours): kills, damaged files, full disks, odd servers",
        "model": "served model for the accuracy and regression tests (default: the smoke model)",
        "base": "served model to compare it with (default: the base that it was trained from)",
    },
)
def test(
    _context: Context,
    only: str = "",
    match: str = "",
    model: str = "",
    base: str = "",
    fast: bool = False,
    slow: bool = False,
    gpu: bool = False,
    container: bool = False,
    serving: bool = False,
    browser: bool = False,
    faults: bool = False,
) -> None:
    """Run the tests.

    Examples:
      ./invoke test --fast
      ./invoke test
      ./invoke test --only tests/contract
      AFFINEUR_FAULT_SEED=14 ./invoke test --faults
      ./invoke test --only tests/performance --model qwen2.5-sfd-analyzer
    """
    with _exit_on_error():
        from launcher.cli import checks

        asked = {
            "gpu": gpu,
            "container": container,
            "serving": serving,
            "browser": browser,
            "faults": faults,
        }
        chosen = [name for name, wanted in asked.items() if wanted]
        checks.test(only, match=match, asked=chosen, model=model, base=base, fast=fast, slow=slow)


@task(
    positional=["name"],
    help={
        "name": "module in benchmarks/, such as merge; an unknown name lists them",
        "args": "the benchmark's own arguments, in quotes; its --help lists them",
    },
)
def bench(_context: Context, name: str, args: str = "") -> None:
    """Run a benchmark and print ratios measured within one run.

    Example:
      ./invoke bench merge
      ./invoke bench container
      ./invoke bench gate_power
      ./invoke bench train --args "--base smoke --rounds 3"
    """
    with _exit_on_error():
        from launcher.cli import checks

        checks.bench(name, args)


@task(help={"serve": "show them at 127.0.0.1:8000 instead, and again after each change"})
def docs(_context: Context, serve: bool = False) -> None:
    """Build the guides as a site, and print its first page.

    Examples:
      ./invoke docs
      ./invoke docs --serve
    """
    with _exit_on_error():
        from launcher.cli import guides

        if serve:
            guides.serve()
        else:
            guides.build()


@task
def check(_context: Context) -> None:
    """Check lint, formatting, types and shell scripts."""
    with _exit_on_error():
        from launcher.cli import checks

        checks.check()


@task
def fix(_context: Context) -> None:
    """Fix lint and formatting problems automatically."""
    with _exit_on_error():
        from launcher.cli import checks

        checks.fix()


@task(iterable=["only"], help={"only": "regenerate only this lock; repeatable (default: all)"})
def lock(_context: Context, only: list[str] | None = None) -> None:
    """Regenerate the hash-pinned locks and print what changed.

    Example:
      ./invoke lock --only host
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.lock(only or [])


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """A user error becomes one sentence and exit code 2; a bug keeps its traceback."""
    # Imported here so that `./invoke --list` does not wait for it.
    from launcher import error_messages

    with error_messages.exit_on_error(Exit):
        yield
