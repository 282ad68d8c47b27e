"""From a monitoring run to the incident, through a real server, Prometheus and Alertmanager."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batteryops.records.api_keys import ApiKeys
from batteryops.records.incidents import Incidents
from batteryops.records.ledger import Ledger
from batteryops.records.monitoring_runs import MONITOR, MonitoringRuns
from integration.observatory import MONITORING, Observatory, program, until

pytestmark = pytest.mark.integration

CAUSES = {"climate", "sensor_fault"}


def document(*, drifts: bool) -> dict[str, Any]:
    """What a run finds of a healthy model; or of one whose input has drifted in two features."""
    drifted = {"psi": 0.61, "ks": 0.35, "p_value": 1e-9, "status": "alert", "cause": "climate"}
    sound = {"psi": 0.02, "ks": 0.03, "p_value": 0.4, "status": "ok", "cause": None}
    shares = {"discharge_time_s": 0.001, "delta_T_C": 0.0}
    return {
        "at": datetime.now(UTC).isoformat(),
        "seconds": 2.0,
        "window_days": 30,
        "rows": 1000,
        "drift": {
            "verdict": "ALERT" if drifts else "OK",
            "retraining_wanted": ["discharge_time_s"] if drifts else [],
            "features": {
                "discharge_time_s": drifted if drifts else sound,
                "voltage_drop_time_s": drifted if drifts else sound,
                "delta_T_C": drifted | {"cause": "sensor_fault_stuck"} if drifts else sound,
                "voltage_V_mean": sound,
            },
            "prediction": sound,
        },
        "performance": {
            "overall": {
                "mae_ah": 0.017,
                "mae_low_ah": 0.015,
                "mae_high_ah": 0.02,
                "r2": 0.98,
                "bias_ah": 0.001,
                "interval_coverage": 0.91,
                "n": 200,
                "n_vehicles": 10,
            },
            "by": {"version": {"1": {"mae_ah": 0.017}}},
            "label_age_s": {"p50": 6e5, "p90": 9e5, "newest": 3600.0},
            "label_coverage": 0.2,
        },
        "error_estimate": {"mae_ah": 0.018, "low": 0.015, "high": 0.02, "method": "held out"},
        "quality": {
            "missing": shares,
            "out_of_range": shares,
            "stuck": shares,
            "duplicates": 0.0,
            "cycle_count_back": 0,
            "out_of_physical_range": 0.0,
            "out_of_domain": 0.01,
            "refused": 0.0,
        },
        "self_test": {"delay_rows": {"0.5 sigma": 300}, "false_alarm_share": 0.03},
        "ledger": {"entries": 3, "intact": True, "head": "0" * 64},
        "backup": {"age_s": 3600},
        "retraining": [{"reason": "drift", "outcome": "promoted", "runs": 1}],
    }


@pytest.fixture
def observatory(tmp_path: Path) -> Iterator[Observatory]:
    for name in ("prometheus", "prometheus-alertmanager"):
        program(name)
    folder = tmp_path / "observatory"
    folder.mkdir()
    with ExitStack() as started:
        yield Observatory(folder, started)


@pytest.fixture
def found(stage: Any) -> Callable[..., None]:  # noqa: ANN401  # conftest's
    """Put a run on record."""

    def find(*, drifts: bool) -> None:
        with MonitoringRuns(stage.settings.predictions_url) as runs:
            runs.add(MONITOR, datetime.now(UTC), document(drifts=drifts))

    return find


def test_drift_becomes_one_incident_and_a_good_run_resolves_it(
    stage: Any,  # noqa: ANN401  # conftest's
    observatory: Observatory,
    found: Callable[..., None],
) -> None:
    settings = stage.settings
    found(drifts=False)
    with ApiKeys(settings.predictions_url) as keys:
        _, admin = keys.create("alertmanager", ["admin"])
    served = stage.serve("--model", stage.package, "--workers", "2")
    observatory.start_alertmanager(f"{served.url}/incidents/alertmanager", admin)
    observatory.start_prometheus(served.url, quick_rules=True)
    until(lambda: observatory.query("max(feature_psi)"), "Prometheus has no PSI")
    # a first scrape that comes too late is an outage for a moment
    until(lambda: not observatory.firing(), "something fires though all is well")

    def states() -> dict[str, str]:
        headers = {"Authorization": f"Bearer {admin}"}
        status, told = served.ask("GET", "/incidents", headers=headers)
        assert status == 200
        found = {one["cause"]["cause"]: one["state"] for one in told["incidents"]}
        return {cause: state for cause, state in found.items() if cause in CAUSES}

    planted_at = time.monotonic()
    found(drifts=True)
    until(lambda: "DataDriftDetected" in observatory.firing(), "the alert does not fire")
    fired_s = time.monotonic() - planted_at
    until(lambda: states().keys() == CAUSES, "the webhook has opened no incident")
    opened_s = time.monotonic() - planted_at
    # two features of one cause are one incident; the broken sensor is another, and no drift
    assert set(states().values()) == {"open"}
    headers = {"Authorization": f"Bearer {admin}"}
    _, told = served.ask("GET", "/incidents", headers=headers)
    by_cause = {one["cause"]["cause"]: one for one in told["incidents"]}
    features = {one["labels"]["feature"] for one in by_cause["climate"]["alerts"]}
    assert features == {"discharge_time_s", "voltage_drop_time_s"}
    sensor = {
        (one["labels"]["alertname"], one["labels"]["feature"])
        for one in by_cause["sensor_fault"]["alerts"]
    }
    assert sensor == {("SensorFault", "delta_T_C")}

    mended_at = time.monotonic()
    found(drifts=False)
    until(lambda: set(states().values()) == {"resolved"}, "the incidents are not resolved")
    resolved_s = time.monotonic() - mended_at
    print(  # noqa: T201  # shown with -s
        f"planted drift: alert after {fired_s:.1f} s, incident after {opened_s:.1f} s; "
        f"a good run: resolved after {resolved_s:.1f} s"
    )
    with Incidents(settings.predictions_url) as incidents, Ledger(settings.ledger_url) as ledger:
        assert not incidents.untold()
        opened = ledger.entries("incident_opened")
        assert ledger.verify().intact
    assert {entry.details["cause"]["cause"] for entry in opened} >= CAUSES


def test_an_outage_is_one_alert_and_silences_the_rest(
    stage: Any,  # noqa: ANN401  # conftest's
    observatory: Observatory,
    found: Callable[..., None],
) -> None:
    found(drifts=True)
    served = stage.serve_package()
    observatory.start_alertmanager("http://127.0.0.1:1/nobody", "no key")
    observatory.start_prometheus(served.url, quick_rules=True)
    until(lambda: "DataDriftDetected" in observatory.firing(), "the alert does not fire")
    served.kill()
    until(lambda: "ServerDown" in observatory.firing(), "the outage is not seen")

    def silenced() -> bool:
        alerts = observatory.alerts()
        loud = {name for name, is_silenced in alerts.items() if not is_silenced}
        return loud == {"ServerDown"} and len(alerts) > 1

    until(silenced, "the outage silences nothing")


def test_every_query_of_every_panel_has_data(
    stage: Any,  # noqa: ANN401  # conftest's
    observatory: Observatory,
    found: Callable[..., None],
) -> None:
    found(drifts=True)
    served = stage.serve_package("--workers", "2")
    observatory.start_prometheus(served.url, quick_rules=True)
    busy = stage.load(served, clients=1)
    busy.until(answers=20)
    targets = [
        (path.name, panel["title"], target)
        for path in sorted(MONITORING.glob("*.json"))
        for panel in json.loads(path.read_text("utf-8"))["panels"]
        for target in panel["targets"]
    ]
    assert len(targets) > 60
    waiting = list(targets)

    def answered() -> bool:
        for one in list(waiting):
            if observatory.query(one[2]["expr"].replace("$__rate_interval", "10s")):
                waiting.remove(one)
        return not waiting

    try:
        until(answered, "some panels stay empty")
    except AssertionError:
        pytest.fail(f"no data for {[(file, title) for file, title, _ in waiting]}")
    assert (busy.refused, busy.broken) == ([], [])
