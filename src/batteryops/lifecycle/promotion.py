"""Putting a version in service: gates first, then the alias, then the ledger."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from batteryops.errors import GateError, RegistryError
from batteryops.evaluation.gates import Verdict
from batteryops.lifecycle.champion_moves import carry_out, moves, one_at_a_time
from batteryops.lifecycle.loading import load_model, open_registry
from batteryops.records.ledger import MODEL_PROMOTED, MODEL_REGISTERED, Entry, Ledger
from batteryops.registry.mlflow_tracking import ALIASES, CHAMPION, ModelRegistry, ModelVersion
from batteryops.settings import Settings

PROMOTION_FAILED: Final = "promotion_failed"
"""The ledger's event for a promotion that the registry did not carry out."""


RECOVERED: Final = "the line was missing: registration ended before it was written"
"""Noted in a registration's line that a promotion wrote in its place."""


@dataclass(frozen=True, slots=True)
class Promoted:
    """What a promotion did.

    Args:
        version: now at the alias.
        alias: `champion` or `challenger`.
        replaced: the version that stood there before, None when there was none.
        forced: whether a failed gate was overruled.
        entry: the ledger's line.
    """

    version: int
    alias: str
    replaced: int | None
    forced: bool
    entry: Entry

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "version": self.version,
            "alias": self.alias,
            "replaced": self.replaced,
            "forced": self.forced,
            "ledger": self.entry.sequence,
        }


def promote(
    version: int,
    settings: Settings,
    *,
    to: str = "champion",
    force: bool = False,
    reason: str | None = None,
) -> Promoted:
    """Move an alias to a version whose package is sound and whose gates passed.

    The version that held the alias before is archived when it was the champion. Promoting the
    version that already stands there changes nothing but is still recorded. The decision is on
    the ledger before anything moves: a process that is killed in between leaves a decision that
    was not carried out, which promoting again carries out, and never a change without a record.

    A version whose registration is not on the ledger, as the process that registered it was
    killed, gets that line first, with a note that it was recovered; also when a gate says no.

    Args:
        version: the registry's number.
        settings: where registry and ledger are.
        to: `champion` or `challenger`.
        force: overrule failed gates; needs `reason`.
        reason: kept in the ledger.

    Raises:
        GateError: a gate failed and it was not forced, or forced without a reason.
        RegistryError: no such version or alias.
        PackageError: the package is changed or cannot be computed here; force does not help.
        RecordsError: the ledger is out of reach; then nothing moves.
    """
    if to not in ALIASES:
        raise RegistryError(f"alias {to!r}; expected one of {', '.join(ALIASES)}")
    if force and not (reason and reason.strip()):
        raise GateError("--force was given without --reason; say why, it is kept in the ledger")
    package = load_model(str(version), settings).package
    verdict = Verdict.from_json(package.document("gates"))
    forced = force and not verdict.passed
    registry = open_registry(settings)
    with one_at_a_time(settings.home), Ledger(settings.ledger_url) as ledger:
        for found in unrecorded([registry.version(version)], settings, ledger):
            ledger.append(
                MODEL_REGISTERED,
                f"{settings.registry.model_name}/{version}",
                {
                    "run_id": found.run_id,
                    "package_fingerprint": package.fingerprint,
                    "gates_passed": verdict.passed,
                    "recovered": RECOVERED,
                },
            )
        if not verdict.passed and not force:
            raise GateError(
                f"version {version} cannot be promoted, it failed {len(verdict.failures)} "
                f"gate{'s' * (len(verdict.failures) > 1)}: {'; '.join(verdict.reasons)}; "
                "overrule with --force --reason TEXT"
            )
        before = registry.find_alias(to)
        replaced = before.version if before is not None and before.version != version else None
        if to == CHAMPION and before is not None and replaced is None:
            replaced = _left_over(version, registry, ledger)
        entry = ledger.append(
            MODEL_PROMOTED,
            f"{settings.registry.model_name}/{version}",
            {
                "alias": to,
                "replaced": replaced,
                "gates_passed": verdict.passed,
                "failed_gates": [gate.name for gate in verdict.failures],
                "forced": forced,
                "reason": reason,
                "package_fingerprint": package.fingerprint,
            },
        )
        with carry_out(entry, ledger, failed=PROMOTION_FAILED, as_="promotion"):
            registry.set_alias(version, to)
            if replaced is not None and to == CHAMPION:
                registry.archive(replaced)
    return Promoted(version, to, replaced, forced, entry)


def unrecorded(
    versions: Iterable[ModelVersion], settings: Settings, ledger: Ledger
) -> list[ModelVersion]:
    """Those versions whose registration is not on the ledger.

    Numbers begin again in a new registry, so that a line must name the version's run as well.

    Raises:
        RecordsError: the ledger is out of reach.
    """
    recorded = {
        (entry.subject, entry.details.get("run_id")) for entry in ledger.entries(MODEL_REGISTERED)
    }
    name = settings.registry.model_name
    return [
        version
        for version in versions
        if (f"{name}/{version.version}", version.run_id) not in recorded
    ]


def _left_over(version: int, registry: ModelRegistry, ledger: Ledger) -> int | None:
    """The version that the champion replaced, where a kill kept it from being archived."""
    last = next(reversed(moves(ledger, registry.model_name)), None)
    if last is None or last.to != version or last.before in {None, version}:
        return None
    left = registry.version(last.before)
    return left.version if left.status == "candidate" else None
