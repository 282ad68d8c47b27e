"""Rules, dashboards and guide in the repository are what the declarations say, and fit together."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from batteryops.errors import SettingsError
from batteryops.monitoring import dashboards
from batteryops.monitoring.alert_rules import page, rules
from batteryops.monitoring.dashboard_plans import plans
from batteryops.monitoring.metric_names import METRICS
from batteryops.monitoring.repository_files import files, main
from batteryops.settings import Settings, load_settings

REPOSITORY = Path(__file__).parents[2]
MONITORING = REPOSITORY / "monitoring"


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(REPOSITORY / "config" / "production.yaml")


def test_the_files_in_the_repository_are_current(settings: Settings) -> None:
    for name, content in files(settings).items():
        assert (REPOSITORY / name).read_text("utf-8") == content, f"run `make docs`: {name}"


def test_the_command_writes_all_of_them(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    config = (REPOSITORY / "config" / "production.yaml").read_text("utf-8")
    (tmp_path / "config" / "production.yaml").write_text(config)
    main([str(tmp_path)])
    for name, content in files(settings).items():
        assert (tmp_path / name).read_text("utf-8") == content


def test_without_the_library_the_message_says_what_to_install(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "grafana_foundation_sdk.builders.common", None)
    with pytest.raises(SettingsError, match="grafana-foundation-sdk, which is not installed"):
        dashboards.pages(settings)


def test_thresholds_are_those_of_the_settings(settings: Settings) -> None:
    other = settings.model_copy(
        update={"monitoring": settings.monitoring.model_copy(update={"mae_alert_ah": 0.055})}
    )
    assert "expr: max(model_mae) > 0.03\n" in page(settings)
    assert "expr: max(model_mae) > 0.055\n" in page(other)
    assert "expected at most 0.055 Ah" in re.sub(r"\s+", " ", page(other))


def test_every_alert_says_what_a_person_needs(settings: Settings) -> None:
    guide = (REPOSITORY / "docs" / "MONITORING_GUIDE.md").read_text("utf-8")
    headings = {line.removeprefix("### ").lower() for line in guide.splitlines() if "### " in line}
    document = yaml.safe_load(page(settings))
    entries = [rule for group in document["groups"] for rule in group["rules"]]
    assert len({entry["alert"] for entry in entries}) == len(entries)
    for entry in entries:
        assert entry["labels"]["severity"] in {"info", "warning", "critical"}
        # what the expression carries by itself comes from drift_cause
        assert entry["labels"].get("cause") or "drift_cause" in entry["expr"]
        annotations = entry["annotations"]
        assert annotations["summary"]
        assert annotations["description"]
        path, _, anchor = annotations["runbook_url"].partition("#")
        assert (REPOSITORY / path).is_file()
        assert anchor in headings


def test_every_alert_is_tested_firing_and_not_firing(settings: Settings) -> None:
    tests = yaml.safe_load((MONITORING / "alert-rules.test.yml").read_text("utf-8"))["tests"]
    fires: set[str] = set()
    rests: set[str] = set()
    for check in (check for test in tests for check in test["promql_expr_test"]):
        for name in re.findall(r'alertname="(\w+)"', check["expr"]):
            (fires if check.get("exp_samples") else rests).add(name)
    assert fires == rests == {rule.name for rule in rules(settings)}


def test_rules_and_panels_ask_for_declared_metrics_only(settings: Settings) -> None:
    exprs = [rule.expr for rule in rules(settings)]
    exprs += [
        query.expr for plan in plans(settings) for one in plan.panels for query in one.queries
    ]
    known = {metric.name for metric in METRICS} | {"up", "ALERTS"}
    for expr in exprs:
        bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", expr)
        bare = re.sub(r"\b(by|on|group_right)\s*\([^)]*\)", " ", bare)
        for name in re.findall(r"\b[a-z]\w*_\w+|\bup\b|\bALERTS\b", bare):
            if name in {"histogram_quantile", "clamp_min"}:
                continue
            assert re.sub("_(bucket|count|sum)$", "", name) in known, expr


def test_every_metric_of_the_model_is_shown_somewhere(settings: Settings) -> None:
    shown = " ".join(
        query.expr for plan in plans(settings) for one in plan.panels for query in one.queries
    )
    assert [one.name for one in METRICS if one.layer == "model" and one.name not in shown] == []


def test_the_first_dashboard_is_the_source_systems_grid() -> None:
    document: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    grid = [
        [panel["title"] for panel in document["panels"] if panel["gridPos"]["y"] == y]
        for y in sorted({panel["gridPos"]["y"] for panel in document["panels"]})
    ]
    assert grid == [
        ["Request rate", "Latency of predictions", "Error rate"],
        ["MAE", "R2", "Worst PSI"],
        ["Feature drift", "Predicted SoH", "Versions in service"],
        ["Alerts", "Retraining", "System"],
    ]
    kinds = {panel["title"]: panel["type"] for panel in document["panels"]}
    assert [kinds[name] for name in ("MAE", "R2", "Worst PSI")] == ["gauge"] * 3
    assert kinds["Feature drift"] == "heatmap"


def test_dashboards_have_identifiers_of_their_own_and_panels_do_not_overlap() -> None:
    uids = set()
    for path in MONITORING.glob("*.json"):
        document = json.loads(path.read_text("utf-8"))
        uids.add(document["uid"])
        cells = [
            (x, y)
            for place in (panel["gridPos"] for panel in document["panels"])
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) == 23
        for panel in document["panels"]:
            assert panel["description"]
            assert panel["targets"]
    assert len(uids) == 5


def test_provisioning_points_at_what_there_is() -> None:
    folder = MONITORING / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards" / "batteryops.yml").read_text())[
        "providers"
    ]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    (source,) = yaml.safe_load((folder / "datasources" / "batteryops.yml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus"
