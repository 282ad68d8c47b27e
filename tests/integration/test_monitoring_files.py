"""Prometheus' and Alertmanager's own tools accept the configuration, and it does what it should."""

import pytest

from integration.observatory import MONITORING, run

pytestmark = pytest.mark.integration


def test_prometheus_accepts_configuration_and_rules() -> None:
    told = run("promtool", "check", "config", str(MONITORING / "prometheus.yml"))
    assert "rules found" in told
    run("promtool", "check", "rules", "--lint=all", str(MONITORING / "alert-rules.yml"))


def test_every_rule_fires_when_it_should_and_only_then() -> None:
    run("promtool", "test", "rules", str(MONITORING / "alert-rules.test.yml"))


def test_alertmanager_accepts_its_configuration() -> None:
    told = run("amtool", "check-config", str(MONITORING / "alertmanager.yml"))
    assert "2 inhibit rules" in told


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=DataDriftDetected", "cause=climate", "severity=warning"), "incidents"),
        (("alertname=ServerDown", "cause=outage", "severity=critical"), "incidents"),
        (("alertname=RetrainingWanted", "cause=retraining", "severity=info"), "dashboards-only"),
    ],
)
def test_alerts_go_to_their_receiver(labels: tuple[str, ...], receiver: str) -> None:
    run(
        *("amtool", "config", "routes", "test"),
        f"--config.file={MONITORING / 'alertmanager.yml'}",
        f"--verify.receivers={receiver}",
        *labels,
    )
