"""Is everything in place? The effective settings, and whether each store can be reached."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batteryops.errors import BatteryOpsError
from batteryops.lifecycle.loading import open_registry
from batteryops.lifecycle.promotion import unrecorded
from batteryops.records.ledger import Ledger
from batteryops.records.predictions import PredictionLog
from batteryops.settings import Settings
from batteryops.telemetry import Lake
from batteryops.urls import masked


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """Whether one store answers, and what it says."""

    store: str
    where: str
    reachable: bool
    message: str


@dataclass(frozen=True, slots=True)
class Examined:
    """Settings in force, with passwords hidden, and the state of each store."""

    settings: dict[str, Any]
    checks: tuple[StoreCheck, ...]

    @property
    def healthy(self) -> bool:
        """Whether every store can be reached."""
        return all(check.reachable for check in self.checks)

    @property
    def settings_rows(self) -> list[tuple[str, str]]:
        """One row per setting, nested names joined by dots."""
        return _flat(self.settings)

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "healthy": self.healthy,
            "settings": self.settings,
            "stores": [
                {
                    "store": check.store,
                    "where": check.where,
                    "reachable": check.reachable,
                    "message": check.message,
                }
                for check in self.checks
            ],
        }


def examine(settings: Settings) -> Examined:
    """Look at every store. Stores that do not exist yet are made, as their first use would."""
    artifact_root = masked(settings.artifact_root)
    checks = (
        _check("home", str(settings.home), lambda: _writable(settings.home)),
        _check("data", str(settings.data or "not set"), lambda: _data(settings.data)),
        _check("lake", str(settings.lake), lambda: _lake(settings)),
        _check("prediction log", masked(settings.predictions_url), lambda: _log(settings)),
        _check("ledger", masked(settings.ledger_url), lambda: _ledger(settings)),
        _check("registry", masked(settings.tracking_uri), lambda: _registry(settings)),
        _check("artifacts", artifact_root, lambda: _artifacts(settings)),
        _check("registrations", masked(settings.ledger_url), lambda: _registrations(settings)),
    )
    document = settings.model_dump(mode="json")
    for name in ("predictions_url", "ledger_url"):
        document["records"][name] = masked(getattr(settings, name))
    document["registry"]["tracking_uri"] = masked(settings.tracking_uri)
    document["registry"]["artifact_root"] = artifact_root
    return Examined(document, checks)


def _check(store: str, where: str, look: Callable[[], str]) -> StoreCheck:
    try:
        return StoreCheck(store, where, reachable=True, message=look())
    except BatteryOpsError as error:
        return StoreCheck(store, where, reachable=False, message=str(error))
    except OSError as error:
        return StoreCheck(store, where, reachable=False, message=f"{error.strerror}: {where}")


def _writable(home: Path) -> str:
    home.mkdir(parents=True, exist_ok=True)
    probe = home / ".doctor"
    probe.write_bytes(b"")
    probe.unlink()
    return "can be written"


def _data(folder: Path | None) -> str:
    if folder is None:
        return "BATTERYOPS_DATA is not set: sources nasa and chengdu are not to be had"
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return f"holds {', '.join(found) or 'nothing'}"


def _lake(settings: Settings) -> str:
    return f"{len(Lake(settings.lake).asset_ids())} assets"


def _log(settings: Settings) -> str:
    with PredictionLog(settings.predictions_url) as log:
        return f"{log.count()} predictions"


def _ledger(settings: Settings) -> str:
    with Ledger(settings.ledger_url) as ledger:
        check = ledger.verify()
    if not check.intact:
        raise BatteryOpsError(f"chain broken at line {check.first_broken}: {check.problem}")
    return f"{check.length} lines, intact"


def _registry(settings: Settings) -> str:
    versions = open_registry(settings).versions()
    champion = next((v.version for v in versions if "champion" in v.aliases), None)
    return f"{len(versions)} versions, champion: {champion or 'none'}"


def _artifacts(settings: Settings) -> str:
    return f"can be kept at {open_registry(settings).check_artifacts()}"


def _registrations(settings: Settings) -> str:
    """Whether the ledger names every version; one that it does not name can still be reached."""
    versions = open_registry(settings).versions()
    with Ledger(settings.ledger_url) as ledger:
        missing = ", ".join(str(found.version) for found in unrecorded(versions, settings, ledger))
    if missing:
        return f"no ledger line for version {missing}; promoting one writes its line first"
    return "every version has its ledger line"


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:  # noqa: ANN401 - any JSON document
    if isinstance(value, dict) and value:
        return [
            row
            for key, item in value.items()
            for row in _flat(item, f"{name}.{key}" if name else str(key))
        ]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [
            row
            for position, item in enumerate(value)
            for row in _flat(item, f"{name}[{item.get('name', position)}]")
        ]
    return [(name, "" if value is None else str(value))]
