"""Let an application use a model: through the gate, by digest, written down, and back again.

A name on a server can be given to another model at any time. So the promoted model gets a name of
its own that bears its digest, and the role is pointed at that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from contract.errors import AffineurError, ExitCode, UserError
from launcher.evaluate.record import Evaluation, GateDecision
from launcher.gate.card import MARKS
from launcher.gate.decision import decide
from launcher.gate.policy import Policy
from launcher.pipeline.finished_run import Run
from launcher.project import shown
from launcher.promote.env_file import EnvVariable
from launcher.promote.log import EnvChange, LogEntry, PromotionLog
from launcher.promote.models_file import RoleEntry
from launcher.serving.import_records import ImportRecords
from launcher.serving.ollama_names import full_name
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.temporary_models import became_another, temporary_alias

_DIGEST_CHARACTERS = 12


class GateRefused(AffineurError):
    """A model that is not to be promoted; the decision says why."""

    exit_code = ExitCode.GATE_REFUSED

    def __init__(self, evaluation: Evaluation, decision: GateDecision) -> None:
        self.evaluation, self.decision = evaluation, decision
        open_lines = ", ".join(line.name for line in decision.lines if not line.passed)
        why = "fails" if decision.outcome == "failed" else "is not shown to pass"
        super().__init__(f"{evaluation.model.name} {why} the gate ({open_lines})")

    def text(self) -> str:
        """What the gate demands and was not shown, and the way around it."""
        lines = [f"  {MARKS[ln.outcome]} {ln.name}: {ln.found}" for ln in self.decision.lines]
        around = 'Nothing was changed. To promote it anyway: --override "REASON".'
        return "\n".join([*lines, "", f"{super().text()}. {around}"])


@dataclass(frozen=True)
class Promoted:
    """What a promotion or a rollback changed: values of the role's `model_name`."""

    before: str
    after: str


def promote(
    run: Run,
    name: str,
    role: RoleEntry,
    *,
    server: OllamaServer,
    policy: Policy,
    override: str = "",
    env: EnvVariable | None = None,
    log: PromotionLog | None = None,
) -> Promoted:
    """Point the role at the run's model, as the server has it under this name.

    Args:
        override: why it is promoted even where the gate says no; empty for not at all.
        env: a variable that gets the path of the run's adapter.

    Raises:
        GateRefused: it is not fit, and nobody overrides that.
        UserError: it was not evaluated, the server has another model under its name, or the role's
            file was changed meanwhile.
    """
    log = log or PromotionLog()
    evaluation = Evaluation.of_run(run.folder, name)
    decision = decide(run, evaluation, policy)
    if not decision.ship and not override:
        raise GateRefused(evaluation, decision)
    digest = server.digest(name)
    if (
        digest is None
        or ImportRecords.of(run).model_digest(digest) != evaluation.model.model_digest
    ):
        what = (
            "has no model" if digest is None else "serves a model other than the evaluated one as"
        )
        raise UserError.one(
            "Ollama", f"{server.public_address} {what} {name}", f"./invoke import --model {name}"
        )
    own_name, adapter = name_by_digest(name, digest), str(run.adapter.resolve())
    # Once more while the log is held; here, so that the server is not changed for nothing.
    _checked(own_name, role, log, env=env, adapter=adapter)
    _give_own_name(own_name, name, digest, server)
    entry = LogEntry(
        at=_now(),
        did="promote",
        role=role.role,
        before=role.model_name,
        after=own_name,
        model=name,
        digest=digest,
        run=run.name,
        gate=decision,
        override=override or None,
        env=None,
    )
    return record(entry, role, log, env=env, adapter=adapter)


def record(
    entry: LogEntry,
    role: RoleEntry,
    log: PromotionLog,
    *,
    env: EnvVariable | None = None,
    adapter: str = "",
) -> Promoted:
    """Write a promotion into the log, then point the role at the model: one promotion at a time.

    Args:
        entry: what is promoted; what stood there before is read while the log is held.
        env: a variable that gets the path `adapter`.

    Raises:
        UserError: a line of the log is no entry, or a file cannot be changed; nothing was.
    """
    with log.held():
        role, env, change = _checked(entry.after, role, log, env=env, adapter=adapter)
        update = {
            "before": role.model_name,
            "lines": role.lines(entry.after),
            "env": change,
        }
        entry = entry.model_copy(update=update)
        log.append(entry)
        role.write(entry.after)
        if env is not None:
            env.write(adapter)
    return Promoted(entry.before, entry.after)


def _checked(
    after: str, role: RoleEntry, log: PromotionLog, *, env: EnvVariable | None, adapter: str
) -> tuple[RoleEntry, EnvVariable | None, EnvChange | None]:
    """The role and the variable as they are now, and how the variable changes.

    Raises:
        UserError: a line of the log is no entry, or a file cannot be changed.
    """
    # Reading it says of a bad line.
    log.standing(role.role)
    role = role.read_again()
    role.changed(after)
    if env is None:
        return role, None, None
    env = EnvVariable.read(env.path, env.key)
    env.check(adapter)
    change = EnvChange(
        file=str(env.path), key=env.key, before=env.value, after=adapter, written=env.written
    )
    return role, env, change


def _give_own_name(own_name: str, name: str, digest: str, server: OllamaServer) -> None:
    """Give the model that has this digest a name that bears it.

    Raises:
        UserError: the model's name became another model's, or another model has that name.
    """
    standing = server.digest(own_name)
    if standing == digest:
        return
    if standing is not None:
        raise UserError.one(
            "Ollama",
            f"{own_name} at {server.public_address} is another model than its name says",
            f"No role was changed. Remove it (ollama rm {own_name}), or rename it.",
        )
    # By way of an alias, whose digest is compared: an import may take the name at any time.
    with temporary_alias(server, full_name(name), digest, "promoted") as alias:
        server.copy(alias, own_name)
        if server.digest(own_name) != digest:
            raise became_another(server, own_name)


def rollback(role: RoleEntry, log: PromotionLog | None = None) -> Promoted:
    """Point the role at what it used before its last promotion.

    Raises:
        UserError: there was none, or the role or the variable was changed by hand since.
    """
    log = log or PromotionLog()
    with log.held():
        return _take_back(role.read_again(), log)


def _take_back(role: RoleEntry, log: PromotionLog) -> Promoted:
    last = log.standing(role.role)
    if last is None:
        raise UserError.one(
            "--role", f"{role.role} has no promotion to undo", f"Log: {shown(log.path)}."
        )
    # At what was there before, it is where something ended a promotion or a rollback half way.
    if role.model_name not in (last.after, last.before):
        raise UserError.one(
            f"{shown(role.path)}: models.{role.role}",
            f"is {role.model_name}, but the last promotion set {last.after}: changed by hand",
            "Change it back by hand as well.",
        )
    env = None
    if last.env is not None:
        env = EnvVariable.read(Path(last.env.file), last.env.key)
    if role.model_name != last.before:
        role.restore(last.before, last.lines)
    if env is not None and last.env is not None and env.value == last.env.after:
        env.restore(EnvVariable(env.path, env.key, last.env.before, last.env.written))
    taken_back = {
        "at": _now(),
        "did": "rollback",
        "before": last.after,
        "after": last.before,
        "lines": None,
        "gate": None,
        "override": None,
        "env": None,
    }
    entry = last.model_copy(update=taken_back)
    log.append(entry)
    return Promoted(entry.before, entry.after)


def name_by_digest(name: str, digest: str) -> str:
    """`model:0123456789ab`, or `model:tag-0123456789ab` where the name has a tag of its own."""
    short = digest.removeprefix("sha256:")[:_DIGEST_CHARACTERS]
    tagged = ":" in name.rpartition("/")[2] and not name.endswith(":latest")
    return f"{name}-{short}" if tagged else f"{name.removesuffix(':latest')}:{short}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
