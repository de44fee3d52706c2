"""What `./invoke` can do: flags in, one launcher call, print. No logic here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from invoke import Context, Exit, task

_ROOT = Path(__file__).resolve().parent

# Started by somebody's own invoke: hand over to the project's environment, same words, once.
_by_invoke = Path(sys.argv[0]).name in ("invoke", "inv") or sys.argv[0].endswith(
    "invoke/__main__.py"
)
_handed_over = os.environ.pop("AFFINEUR_HANDED_OVER", "")
if _by_invoke and not _handed_over and Path(sys.prefix).resolve() != (_ROOT / ".venv").resolve():
    os.environ["AFFINEUR_HANDED_OVER"] = "yes"
    os.execv(_ROOT / "invoke", ["./invoke", *sys.argv[1:]])

_PROFILE = "rtx, t4, cpu or smoke: a file in configs/profiles/"
_CONFIG = "a JSON or YAML file of keys (default: the profile's own)"
_SET = "key=value over the configuration; may be given again and again"
_DATA = "a dataset in place of the configured one (.jsonl, .json, .csv, .parquet)"
_QUIET = "say nothing but the result"
_OLLAMA = "host (the server at OLLAMA_HOST) or container (one in Docker, stopped again afterwards)"
_POLICY = "a file of demands in place of configs/gate.yaml"
_FLAGS = {"profile": _PROFILE, "config": _CONFIG, "set": _SET, "data": _DATA}


@task(
    iterable=["set"],
    help={
        **_FLAGS,
        "engine": "auto, local or docker: where the stages run",
        "memory": "the most that a stage's container may use, such as 12g (default: no bound)",
        "ollama": "auto (a server that answers gets the model), host (one must), "
        "container (one is started in Docker, and stopped again), or none",
        "replace": "take the model's name in Ollama even from a model of somebody else's",
        "quiet": _QUIET,
    },
)
def train(
    _context: Context,
    profile: str = "rtx",
    config: str = "",
    set: list[str] | None = None,
    data: str = "",
    engine: str = "auto",
    memory: str = "",
    ollama: str = "auto",
    replace: bool = False,
    quiet: bool = False,
) -> None:
    """Fine-tune a model: prepare, train, merge, convert, modelfile, import.

    Examples:
      ./invoke train --profile smoke
      ./invoke train --profile rtx --config configs/training_config.json
      ./invoke train --profile rtx --engine docker --memory 24g
      ./invoke train --profile smoke --ollama container
      ./invoke train --profile smoke --data my.csv --set columns.instruction=question \\
                     --set columns.output=answer --set epochs=2
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.train(profile, config, set or [], data, engine, memory, ollama, replace, quiet)


@task(
    name="import",
    help={
        "model": "the output_model_name of a finished run",
        "run": "the beginning of a run's key (default: the last finished one)",
        "ollama": _OLLAMA,
        "replace": "take the name even from a model of somebody else's",
    },
)
def import_model(
    _context: Context, model: str, run: str = "", ollama: str = "host", replace: bool = False
) -> None:
    """Bring a finished run's model into an Ollama server.

    Examples:
      ./invoke import --model affineur-smoke
      ./invoke import --model affineur-smoke --ollama container
      OLLAMA_HOST=gpu-box:11434 ./invoke import --model qwen2.5-sfd-analyzer
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.import_model(model, run, ollama, replace)


@task(
    help={
        "model": "the output_model_name of a finished run",
        "run": "the beginning of a run's key (default: the last finished one)",
        "ollama": _OLLAMA,
    }
)
def verify(_context: Context, model: str, run: str = "", ollama: str = "host") -> None:
    """Prove that what Ollama serves under a name is what was trained.

    Examples:
      ./invoke verify --model affineur-smoke
      ./invoke verify --model affineur-smoke --ollama container
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.verify(model, run, ollama)


@task(
    help={
        "model": "a served model: the output_model_name of a run, or any other with --data",
        "base": "a served model to compare with (default: the base that the run started from)",
        "data": "evaluation rows: a file, or a name in data/evaluation/ (default: the run's own)",
        "skills": "a folder of sets that the base should still know (default: "
        "data/evaluation/skills), or none",
        "metric": "exact, normalized, number, json_valid, json_f1, contains, regex or chrf "
        "(default: the profile's, else what fits the rows)",
        "run": "the beginning of a run's key (default: the last finished one)",
        "ollama": "auto (a server that has the model, else its file is read by llama-server), "
        "host, container, or none (llama-server)",
        "engine": "auto, local or docker: where rows are read and the base is converted",
        "parallel": "how many questions are asked at once",
        "drop-leaked": "leave out rows that were trained on, which are refused otherwise",
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
    parallel: int = 4,
    drop_leaked: bool = False,
    quiet: bool = False,
) -> None:
    """Score a served model on its task and on general skills, beside its base.

    Examples:
      ./invoke evaluate --model affineur-smoke
      ./invoke evaluate --model affineur-smoke --base qwen2.5:1.5b-instruct --skills none
      ./invoke evaluate --model qwen2.5:1.5b-instruct --data my_rows.csv --metric number
    """
    with _exit_on_error():
        from launcher.cli import commands
        from launcher.evaluate.evaluation import EvaluationRequest

        request = EvaluationRequest(model, base, data, skills, metric, parallel, drop_leaked)
        commands.evaluate(request, run, ollama, engine, quiet)


@task(
    help={
        "model": "the output_model_name of an evaluated run",
        "run": "the beginning of a run's key (default: the last finished one)",
        "policy": _POLICY,
    }
)
def gate(_context: Context, model: str, run: str = "", policy: str = "") -> None:
    """Say whether an evaluated model is fit to be used: exit 0, or 3 where it is not.

    Example:
      ./invoke gate --model affineur-smoke
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.gate(model, run, policy)


@task(
    help={
        "role": "a role under models in configs/models.yaml",
        "model": "the output_model_name of an evaluated run that the server has",
        "run": "the beginning of a run's key (default: the last finished one)",
        "policy": _POLICY,
        "override": "promote it against the gate; the reason, which is written down",
        "ollama": _OLLAMA,
        "env-file": "an application's .env that gets the adapter's path, too",
        "env-key": "the variable in it",
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
    """Let an application use a model: change its role in configs/models.yaml, through the gate.

    Examples:
      ./invoke promote --role sfd_analyzer --model affineur-smoke
      ./invoke promote --role sfd_analyzer --model affineur-smoke \\
                       --env-file ../app/.env --env-key RAISE_LORA_PATH
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.promote(model, role, run, policy, override, ollama, env_file, env_key)


@task(help={"role": "a role under models in configs/models.yaml"})
def rollback(_context: Context, role: str) -> None:
    """Point a role at what it used before its last promotion.

    Example:
      ./invoke rollback --role sfd_analyzer
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.rollback(role)


@task(iterable=["set"], help=_FLAGS)
def plan(
    _context: Context,
    profile: str = "rtx",
    config: str = "",
    set: list[str] | None = None,
    data: str = "",
) -> None:
    """Say what `train` would do with the same flags, and do nothing.

    Example:
      ./invoke plan --profile smoke --set epochs=2
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.plan(profile, config, set or [], data)


@task(
    iterable=["set"],
    help={**_FLAGS, "engine": "auto, local or docker: where it runs", "quiet": _QUIET},
)
def data(
    _context: Context,
    data: str = "",
    profile: str = "rtx",
    config: str = "",
    set: list[str] | None = None,
    engine: str = "auto",
    quiet: bool = False,
) -> None:
    """Report on a dataset: rows, token lengths, cuts, duplicates, problems.

    Examples:
      ./invoke data --data data/training/smoke.jsonl --profile smoke
      ./invoke data --data export.csv --set columns.instruction=question \\
                    --set columns.output=answer
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.data(profile, config, set or [], data, engine, quiet)


@task(
    help={
        "profile": _PROFILE,
        "base-image": "an image in place of the pinned one, for a network without its registry",
        "wheels": "a folder of all wheels of the lock, taken in place of the index",
        "ca": "a bundle of certificates that the package index is behind; stays in no layer",
        "cache": "a folder to read layers from and keep them in, for machines that do not last",
        "dev": "the devcontainer's image in place of a profile's",
        "exporter": "the profile's image with llama.cpp's converters and tools",
        "tools": "no image: llama.cpp's tools alone, for the local engine; prints their folder",
        "check": "build twice from nothing, keep nothing, and compare the digests",
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
        inputs = images.BuildInputs.given(base_image, wheels, ca, cache)
        commands.build(profile, dev, exporter, inputs, check)


@task(
    help={
        "profile": _PROFILE,
        "engine": "auto, local or docker: with docker, a missing engine is a failure",
    }
)
def doctor(_context: Context, profile: str = "rtx", engine: str = "auto") -> None:
    """Look at what a profile needs of this machine: engine, disk, card, driver, Ollama.

    Examples:
      ./invoke doctor
      ./invoke doctor --profile smoke --engine docker
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.doctor(profile, engine)


@task(
    help={
        "only": "a test file or folder (default: all that needs neither Docker, GPU nor Ollama)",
        "match": "only tests whose names match this expression (pytest -k)",
        "fast": "only tests that train, compile and serve nothing: under a minute",
        "gpu": "the tests that need a card; they fail without one",
        "container": "the tests that need a Docker engine; they fail without one",
        "serving": "the tests that need Ollama; they fail without it",
        "model": "a served model for the tests of accuracy and regression (default: smoke's)",
        "base": "a served model that they compare with (default: the base that it was made from)",
    },
)
def test(
    _context: Context,
    only: str = "",
    match: str = "",
    model: str = "",
    base: str = "",
    fast: bool = False,
    gpu: bool = False,
    container: bool = False,
    serving: bool = False,
) -> None:
    """Run the tests.

    Examples:
      ./invoke test --fast
      ./invoke test
      ./invoke test --only tests/contract
      ./invoke test --only tests/performance --model qwen2.5-sfd-analyzer
    """
    with _exit_on_error():
        from launcher.cli import checks

        asked = {"gpu": gpu, "container": container, "serving": serving}
        chosen = [name for name, wanted in asked.items() if wanted]
        checks.test(only, match, chosen, model, base, fast=fast)


@task(positional=["name"], help={"name": "merge: a module of benchmarks/"})
def bench(_context: Context, name: str) -> None:
    """Measure something against its rival, in ratios within one run.

    Example:
      ./invoke bench merge
    """
    with _exit_on_error():
        from launcher.cli import checks

        checks.bench(name)


@task
def check(_context: Context) -> None:
    """Lint, formatting and types; changes nothing."""
    with _exit_on_error():
        from launcher.cli import checks

        checks.check()


@task
def fix(_context: Context) -> None:
    """Mend what lint and formatting can mend by themselves."""
    with _exit_on_error():
        from launcher.cli import checks

        checks.fix()


@task(iterable=["only"], help={"only": "one lock (default: all)"})
def lock(_context: Context, only: list[str] | None = None) -> None:
    """Regenerate the hash locks in docker/locks/ and say what moved.

    Example:
      ./invoke lock --only host
    """
    with _exit_on_error():
        from launcher.cli import commands

        commands.lock(only or [])


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """What a person can fix becomes a sentence and exit code 2; a bug keeps its traceback."""
    # Here, not above: `./invoke --list` should not wait for it.
    from launcher import error_messages

    with error_messages.exit_on_error(Exit):
        yield
