"""Going back to the last good version, in one command and without a failed request.

Everything is checked before anything moves, the decision is on the ledger before the alias moves,
and that it was carried out is on the ledger after the running servers were asked. A process that is
killed in between, or a registry that goes away, leaves a decision that was not carried out to its
end: rolling back again does that, and does not go back a second time.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from batteryops.errors import GateError, PackageError, RecordsError, RegistryError
from batteryops.lifecycle.champion_moves import Move, carry_out, moves, one_at_a_time
from batteryops.lifecycle.loading import open_registry
from batteryops.lifecycle.progress import Progress, Silent
from batteryops.lifecycle.servers import ServerState, servers_of, wait_until_served
from batteryops.models.package import load_package
from batteryops.records.ledger import (
    MODEL_PROMOTED,
    MODEL_REGISTERED,
    MODEL_ROLLED_BACK,
    Entry,
    Ledger,
)
from batteryops.registry.mlflow_tracking import CHALLENGER, CHAMPION, ModelRegistry, ModelVersion
from batteryops.registry.versions import ROLLED_BACK_TAG
from batteryops.serving.live_model import LiveModel, ServedModel
from batteryops.settings import Settings

ROLLBACK_CARRIED_OUT: Final = "rollback_carried_out"
"""The ledger's event for the end of a rollback, with what the servers said."""

ROLLBACK_FAILED: Final = "rollback_failed"
"""The ledger's event for a rollback that the registry did not carry out."""


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback did.

    Args:
        version: now the champion.
        replaced: the bad version, archived.
        reason: why it was.
        passed_over: good versions that could not be gone back to, each with why.
        challenger: whose trial against the bad version ended; None where there was none.
        resumed: whether a rollback that was decided before was carried out.
        servers: what the running servers say.
        entry: the ledger's line of the decision.
        seconds: that it took, the servers included.
    """

    version: int
    replaced: int
    reason: str
    passed_over: tuple[tuple[int, str], ...]
    challenger: int | None
    resumed: bool
    servers: tuple[ServerState, ...]
    entry: Entry
    seconds: float

    @property
    def verified(self) -> bool:
        """Whether every server that was asked answers with the version."""
        return all(server.served for server in self.servers)

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "version": self.version,
            "replaced": self.replaced,
            "reason": self.reason,
            "passed_over": [
                {"version": version, "problem": why} for version, why in self.passed_over
            ],
            "challenger": self.challenger,
            "resumed": self.resumed,
            "verified": self.verified,
            "servers": [server.to_json() for server in self.servers],
            "ledger": self.entry.sequence,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class _Decided:
    """A rollback that is on the ledger."""

    entry: Entry
    resumed: bool

    @property
    def replaced(self) -> int:
        return int(self.entry.details["from"])

    @property
    def version(self) -> int:
        return int(self.entry.details["to"])

    @property
    def challenger(self) -> int | None:
        found: int | None = self.entry.details["challenger"]
        return found


def rollback(  # noqa: PLR0913 - from what, to what, why, and whom to tell
    settings: Settings,
    *,
    reason: str,
    to: int | None = None,
    bad: int | None = None,
    actor: str | None = None,
    servers: Sequence[str] | None = None,
    secret: str | None = None,
    progress: Progress | None = None,
) -> RolledBack:
    """Put the last good version back in service.

    That is the one that was champion last before the present one and was never itself gone back
    from. Where its package is damaged the good one before it is taken. Every package is checked:
    its fingerprint against the ledger's line and the registry's tag, all its files, its recorded
    answers, and one prediction as a server makes it.

    Args:
        settings: where registry, ledger and servers are.
        reason: kept in the ledger.
        to: this version instead, also one that was gone back from before.
        bad: the version that is to go; where it is gone already, its rollback is finished and told.
            None for whichever is champion.
        actor: who decided; None for the machine itself.
        servers: to ask, instead of `retraining.servers`.
        secret: of an API key for them.
        progress: told what is being done.

    Raises:
        RegistryError: there is no champion, or none that can be gone back to; or the registry does
            not answer, and then rolling back again finishes what was begun.
        GateError: `to` never was champion and failed a gate.
        RecordsError: the ledger is out of reach. Nothing moves then; where only the end cannot be
            written, rolling back again writes it, and moves nothing.
        SettingsError: a server's address or the key is none; then nothing moves.
    """
    began, asked_at = time.monotonic(), datetime.now(UTC)
    if not (reason.strip() and reason.isprintable()):
        raise RecordsError(f"reason {reason!r}: expected printable text that says why")
    urls, key = servers_of(settings, servers, secret)
    steps = progress or Silent()
    registry = open_registry(settings)
    with Ledger(settings.ledger_url) as ledger:
        with one_at_a_time(settings.home):
            steps.step("look up the last good version")
            decided = _decide(settings, registry, ledger, _Asked(reason, to, bad, actor, asked_at))
            steps.step(f"put version {decided.version} in service")
            with carry_out(decided.entry, ledger, failed=ROLLBACK_FAILED, as_="rollback"):
                _move(decided, registry)
        steps.step("ask the running servers")
        details = decided.entry.details
        states = wait_until_served(
            settings,
            decided.version,
            details["package_fingerprint"],
            urls=urls,
            secret=key,
        )
        if not _carried_out(ledger, decided.entry):
            ledger.append(
                ROLLBACK_CARRIED_OUT,
                decided.entry.subject,
                {
                    "rollback": decided.entry.sequence,
                    "servers": [state.to_json() for state in states],
                },
                actor,
            )
    return RolledBack(
        version=decided.version,
        replaced=decided.replaced,
        reason=details["reason"],
        passed_over=tuple((one["version"], one["problem"]) for one in details["passed_over"]),
        challenger=decided.challenger,
        resumed=decided.resumed,
        servers=states,
        entry=decided.entry,
        seconds=round(time.monotonic() - began, 4),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    reason: str
    to: int | None
    bad: int | None
    actor: str | None
    at: datetime


def _decide(settings: Settings, registry: ModelRegistry, ledger: Ledger, asked: _Asked) -> _Decided:
    """Write down what is to happen, or find what was decided and not carried out to its end."""
    holder = registry.version_at(CHAMPION)
    history = moves(ledger, registry.model_name)
    begun = _begun(history, holder, ledger, asked)
    if begun is not None:
        return _Decided(begun.entry, resumed=True)
    if asked.bad not in {None, holder.version}:
        raise RegistryError(
            f"version {asked.bad} is not @champion, version {holder.version} is: there is nothing "
            "to roll back"
        )
    good, passed_over = _choose(settings, registry, ledger, history, holder, asked.to)
    challenger = registry.find_alias(CHALLENGER)
    entry = ledger.append(
        MODEL_ROLLED_BACK,
        f"{registry.model_name}/{good.version}",
        {
            "from": holder.version,
            "to": good.version,
            "reason": asked.reason,
            "passed_over": [
                {"version": version, "problem": problem} for version, problem in passed_over
            ],
            "challenger": None
            if challenger is None or challenger.version == good.version
            else challenger.version,
            "package_fingerprint": good.package_fingerprint,
        },
        asked.actor,
    )
    return _Decided(entry, resumed=False)


def _begun(history: list[Move], holder: ModelVersion, ledger: Ledger, asked: _Asked) -> Move | None:
    """The newest decision, where it is the rollback that is asked for and not at its end.

    One that ended while this one waited for its turn is the one that was asked for twice. One
    whose alias did not move yet is decided anew, as its package is to be checked again.
    """
    last = history[-1] if history else None
    if last is None or not last.is_rollback or last.to != holder.version:
        return None
    if asked.to not in {None, last.to}:
        return None
    if asked.bad is not None:
        return last if last.before == asked.bad else None
    ended = _carried_out(ledger, last.entry)
    return None if ended is not None and ended.at < asked.at else last


def _carried_out(ledger: Ledger, decision: Entry) -> Entry | None:
    for entry in reversed(ledger.entries(ROLLBACK_CARRIED_OUT)):
        if entry.details["rollback"] == decision.sequence:
            return entry
    return None


def _choose(  # noqa: PLR0913, PLR0917 - what there is, and what is asked for
    settings: Settings,
    registry: ModelRegistry,
    ledger: Ledger,
    history: list[Move],
    holder: ModelVersion,
    to: int | None,
) -> tuple[ModelVersion, list[tuple[int, str]]]:
    """The version to go back to, checked; and those that were passed over."""
    stood = [move.before for move in history if move.before is not None]
    if to is not None:
        if to == holder.version:
            raise RegistryError(f"version {to} is @champion already; name another with --to")
        named = registry.version(to)
        if to not in stood and named.gates_passed is not True:
            raise GateError(
                f"version {to} failed a gate and was never champion; "
                "`batteryops promote --force --reason TEXT` overrules gates"
            )
        _check(named, settings, registry, ledger)
        return named, []
    bad = {move.before for move in history if move.is_rollback}
    passed_over: list[tuple[int, str]] = []
    for number in dict.fromkeys(reversed(stood)):
        if number in bad or number == holder.version:
            continue
        try:
            good = registry.version(number)
            _check(good, settings, registry, ledger)
        except (PackageError, RegistryError) as error:
            registry.find_alias(CHAMPION)  # raises where it is the registry that does not answer
            passed_over.append((number, str(error)))
        else:
            return good, passed_over
    tried = "".join(f"; version {number}: {why}" for number, why in passed_over)
    raise RegistryError(
        f"there is no version to go back to from version {holder.version}: the ledger has no "
        f"earlier champion that is sound and was not gone back from{tried}; name one with --to"
    )


def _check(
    version: ModelVersion, settings: Settings, registry: ModelRegistry, ledger: Ledger
) -> None:
    """Hold a version to what is on record of it, and have it answer.

    Raises:
        PackageError, RegistryError: saying what is wrong.
    """
    subject = f"{registry.model_name}/{version.version}"
    lines = [
        entry
        for event in (MODEL_REGISTERED, MODEL_PROMOTED)
        for entry in ledger.entries(event)
        if entry.subject == subject and "package_fingerprint" in entry.details
    ]
    noted = max(lines, key=lambda entry: entry.sequence, default=None)
    expected = None if noted is None else noted.details["package_fingerprint"]
    if expected is None or expected != version.package_fingerprint:
        raise RegistryError(
            f"version {version.version} has fingerprint {version.package_fingerprint} in the "
            f"registry, expected {expected or 'a line of it'} as on the ledger"
        )
    package = load_package(registry.package_of(version.version, settings.packages))
    live = LiveModel(ServedModel(package, str(version.version), CHAMPION), settings.serving.cache)
    wrong = live.self_test()
    if wrong is not None:
        raise PackageError(f"version {version.version}: {wrong}")


def _move(decided: _Decided, registry: ModelRegistry) -> None:
    """Carry out what was decided; whatever of it is done already stays as it is."""
    registry.set_alias(decided.version, CHAMPION)
    challenger = registry.find_alias(CHALLENGER)
    if challenger is not None and challenger.version == decided.challenger:
        registry.drop_alias(CHALLENGER)
    registry.archive(
        decided.replaced, tags={ROLLED_BACK_TAG: f"ledger line {decided.entry.sequence}"}
    )
