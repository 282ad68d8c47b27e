"""What /metrics tells beyond the workers' own counts: monitoring run, machine, predicted SoH."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from batteryops.monitoring.metric_names import BY_NAME, SERVER_METRICS
from batteryops.records.monitoring_runs import MONITOR, MonitoringRuns
from batteryops.serving.machine import MachineCollector, OwnUse
from batteryops.serving.tally import Tally
from batteryops.settings import Settings


@pytest.fixture
def client(serve: Callable[..., TestClient], settings: Settings, tmp_path: Path) -> TestClient:
    return serve(settings=settings.in_home(tmp_path))


def families(client: TestClient) -> dict[str, Any]:
    return {
        family.name: family
        for family in text_string_to_metric_families(client.get("/metrics").text)
    }


def test_the_newest_run_in_the_database_is_told(
    serve: Callable[..., TestClient], settings: Settings, tmp_path: Path, url: str
) -> None:
    with MonitoringRuns(url) as runs:
        for mae in (0.05, 0.02):
            document = {"performance": {"overall": {"mae_ah": mae}}}
            runs.add(MONITOR, datetime.now(UTC), document)
        runs.add("self_test", datetime.now(UTC), {"performance": {"overall": {"mae_ah": 9}}})
    told = families(serve(settings=settings.in_home(tmp_path)))
    assert [sample.value for sample in told["model_mae"].samples] == [0.02]
    assert [sample.value for sample in told["monitoring_readable"].samples] == [1]


def test_without_a_run_or_a_database_the_scrape_succeeds(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_given: object) -> None:
        raise RuntimeError("whatever it is")

    monkeypatch.setattr(MonitoringRuns, "newest", fails)
    told = families(client)
    assert [sample.value for sample in told["monitoring_readable"].samples] == [0]
    assert "model_mae" not in told
    assert "http_requests_in_flight" in told


def test_every_metric_of_the_server_is_declared_with_its_type_and_labels(
    client: TestClient, body: dict[str, object]
) -> None:
    assert client.post("/predict", json=body).is_success
    collected = client.app.state.service.metrics  # type: ignore[attr-defined]  # an ASGI app
    library = {"process", "python"}  # prometheus_client's own
    found = {}
    for family in collected.exposed().collect():
        if family.name.split("_")[0] in library:
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for one in family.samples for label in one.labels} - {"le"}
        assert family.type == BY_NAME[name].kind
        assert labels <= set(BY_NAME[name].labels)
        assert family.documentation.rstrip(".").split(",")[0] in BY_NAME[name].help
        found[name] = labels
    assert found.keys() == {metric.name for metric in SERVER_METRICS}


def test_every_predicted_soh_is_counted_once_whichever_way_it_was_asked(
    client: TestClient, body: dict[str, object]
) -> None:
    soh = [client.post("/predict", json=body).json()["soh"] for _ in range(3)]
    soh.append(client.post("/predict?explain=true", json=body).json()["soh"])
    rows = [body] * 5
    answer = client.post("/predict/batch", json={"rows": rows}).json()
    soh += [one["soh"] for one in answer["rows"]]
    assert all(soh)
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for sample in families(client)["predicted_soh"].samples
        if sample.labels["version"] == "3"
    }
    assert samples["predicted_soh_count", None] == 9
    assert samples["predicted_soh_sum", None] == pytest.approx(sum(soh))
    assert samples["predicted_soh_bucket", "0.9"] == sum(one <= 0.9 for one in soh)


def test_a_tally_counts_as_the_histogram_itself_does() -> None:
    bounds = (0.5, 0.9, 1.0)
    registries = CollectorRegistry(), CollectorRegistry()
    one, other = (
        Histogram("soh", "x", buckets=bounds, registry=registry) for registry in registries
    )
    values = [0.1, 0.5, 0.51, 0.9, 1.0, 1.7, 0.9]
    tally = Tally(one, bounds)
    tally.add(values[:3])
    tally.add_column(np.asarray([*values[3:], np.nan]))
    tally.flush()
    tally.flush()
    for value in values:
        other.observe(value)
    for registry in registries:
        assert registry.get_sample_value("soh_sum") == pytest.approx(sum(values))
    buckets = [
        [line for line in generate_latest(registry).decode().splitlines() if "bucket" in line]
        for registry in registries
    ]
    assert buckets[0] == buckets[1]


def test_the_machine_is_told_as_the_kernel_tells_it(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  100 0 300 5000 7 1 2 0 0 0\ncpu0 1 2 3\n")
    (tmp_path / "meminfo").write_text("MemTotal:  2048 kB\nMemAvailable:  1024 kB\nHuge: 0\n")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in MachineCollector(tmp_path, tmp_path).collect()
        for sample in family.samples
    }
    assert samples["host_cpu_seconds_total", "system"] == 3.0  # a hundred ticks a second
    assert samples["host_cpu_seconds_total", "idle"] == 50.0
    assert samples["host_memory_size_bytes",] == 2 * 1024**2
    assert samples["host_memory_available_bytes",] == 1024**2
    assert 0 < samples["home_disk_free_bytes",] <= samples["home_disk_size_bytes",]


@pytest.mark.parametrize("told", [None, "cpu a b\n", ""])
def test_what_cannot_be_read_has_no_sample(tmp_path: Path, told: str | None) -> None:
    if told is not None:
        (tmp_path / "stat").write_text(told)
        (tmp_path / "meminfo").write_text(told)
    found = list(MachineCollector(tmp_path / "gone", tmp_path).collect())
    assert [sample for family in found for sample in family.samples] == []


def test_a_workers_own_use_grows_and_is_looked_at_once_a_second() -> None:
    registry = CollectorRegistry()
    cpu = Counter("cpu", "x", registry=registry)
    memory = Gauge("memory", "x", registry=registry)
    use = OwnUse(cpu, memory)
    use.note()
    first = registry.get_sample_value("cpu_total")
    assert first is not None
    assert first > 0
    assert (registry.get_sample_value("memory") or 0) > 1e6
    sum(range(100_000))
    use.note()  # too soon
    assert registry.get_sample_value("cpu_total") == first
