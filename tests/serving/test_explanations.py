"""Explanations: with the answer, of an answer on record, and of a share of all answers."""

import math
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest
from starlette.testclient import TestClient

from batteryops.errors import RecordsError
from batteryops.models.manifest import BOOSTER, ChosenAlgorithm
from batteryops.models.package import ModelPackage
from batteryops.records.api_keys import ApiKeys
from batteryops.records.batches import AFTER, BatchVersion, PredictionBatch
from batteryops.records.identifiers import new_id
from batteryops.records.predictions import PredictionLog, PredictionRecord
from batteryops.registry.package_cache import folder_of
from batteryops.serving.deployment import Deployment, deploy_package
from batteryops.serving.doors import Doors
from batteryops.serving.explainer import Explainer, explain
from batteryops.serving.metrics import Metrics
from batteryops.serving.service import Service
from batteryops.settings import Settings

Serve = Callable[..., TestClient]


def service_of(client: TestClient) -> Service:
    return cast("Any", client.app).state.service  # type: ignore[no-any-return]  # Starlette's state


def is_problem(response: Any, status: int, kind: str) -> str:  # noqa: ANN401  # httpx's
    """Assert that a response is that problem document, and give its detail."""
    assert response.status_code == status, response.text
    document = response.json()
    assert document["type"] == f"urn:batteryops:problem:{kind}"
    return str(document["detail"])


def record(package: ModelPackage, body: dict[str, object], **changes: object) -> PredictionRecord:
    """An answer on record, by a version that is in service nowhere."""
    features = {name: cast("float", body[name]) for name in package.view.names}
    base = PredictionRecord(
        prediction_id=new_id(),
        request_id="request-1",
        answered_at=datetime.now(UTC),
        vehicle_id="B0005",
        model_name="ev-soh-predictor",
        model_version="2",
        package_fingerprint=package.fingerprint,
        role="champion",
        features=features,
        capacity_ah=float(package.predict_batch([list(features.values())])[0]),
        soh=0.9,
        latency_ms=0.2,
        capacity_low_ah=1.0,
        capacity_high_ah=2.0,
        status="ok",
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # names and types as above


def unexplainable(client: TestClient) -> None:
    """Let the model in service be one that is not a booster."""
    package = service_of(client).lineup.champion.package
    package.manifest = package.manifest.model_copy(
        update={"booster": False, "algorithm": ChosenAlgorithm(name="ridge")}
    )


# --- with the answer


def test_an_explained_answer_adds_up_and_is_on_record_with_its_contributions(
    client: TestClient, log: PredictionLog, body: dict[str, object], package: ModelPackage
) -> None:
    plain = client.post("/predict", json=body).json()
    response = client.post("/predict?explain=true", json=body, headers={"X-Request-ID": "why"})
    assert response.status_code == 200
    answer = response.json()
    told = answer.pop("explanation")
    assert answer.keys() == plain.keys()
    assert answer["capacity_ah"] == plain["capacity_ah"]
    assert answer["cached"]
    assert set(told["contributions"]) == set(package.view.names)
    total = math.fsum((told["base_ah"], *told["contributions"].values()))
    assert total == pytest.approx(answer["capacity_ah"], abs=1e-5)
    sizes = [abs(added) for added in told["contributions"].values()]
    assert sizes == sorted(sizes, reverse=True)

    kept = log.get(answer["prediction_id"])
    assert kept is not None
    assert (kept.request_id, kept.served, kept.cached) == ("why", True, True)
    assert kept.contributions == told["contributions"]
    assert (kept.base_ah, kept.capacity_ah) == (told["base_ah"], answer["capacity_ah"])
    other = log.get(plain["prediction_id"])
    assert other is not None
    assert other.contributions is None


def test_without_the_wish_there_is_no_explanation(
    client: TestClient, body: dict[str, object]
) -> None:
    answer = client.post("/predict?explain=false", json=body).json()
    assert "explanation" not in answer


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("explain=maybe", "explain=maybe"),
        ("explain=", "explain="),
        ("explain=true&explain=true", "explain=true"),
        ("explian=true", "unknown parameter 'explian'"),
    ],
)
def test_a_query_that_asks_for_anything_else_is_refused(
    client: TestClient, log: PredictionLog, body: dict[str, object], query: str, named: str
) -> None:
    detail = is_problem(client.post(f"/predict?{query}", json=body), 422, "invalid-request")
    assert named in detail
    assert log.count() == 0


def test_a_number_that_is_withheld_is_not_told_by_its_explanation(
    client: TestClient, log: PredictionLog, body: dict[str, object]
) -> None:
    answer = client.post("/predict?explain=true", json=body | {"temperature_C_max": 61.0}).json()
    assert (answer["status"], answer["capacity_ah"]) == ("out_of_domain", None)
    assert answer["explanation"] is None
    kept = log.get(answer["prediction_id"])
    assert kept is not None
    assert kept.contributions is not None


def test_a_faulty_body_is_refused_as_without_explanation(
    client: TestClient, body: dict[str, object]
) -> None:
    response = client.post("/predict?explain=true", json=body | {"vehicle_id": 5})
    is_problem(response, 422, "invalid-request")


def test_a_model_that_is_not_one_booster_is_not_explained(
    client: TestClient, body: dict[str, object], log: PredictionLog
) -> None:
    unexplainable(client)
    told = is_problem(client.post("/predict?explain=true", json=body), 409, "not-explainable")
    assert told.startswith("version 3 answers by ridge; only a model that is one XGBoost booster")
    assert log.count() == 0


def test_an_answer_that_the_booster_does_not_give_is_not_explained(
    client: TestClient,
    body: dict[str, object],
    log: PredictionLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    champion = service_of(client).lineup.champion
    monkeypatch.setattr(champion, "_answer", Off(champion._answer))  # noqa: SLF001 - a twin of another model
    told = is_problem(client.post("/predict?explain=true", json=body), 409, "not-explainable")
    assert "the server's log says more" in told
    assert log.count() == 0


class Off:
    """A twin that answers a little too much."""

    def __init__(self, twin: Any) -> None:  # noqa: ANN401  # an OnnxRow
        self.twin = twin

    def few(self, rows: Any) -> list[float]:  # noqa: ANN401  # an array
        return [capacity + 0.01 for capacity in self.twin.few(rows)]


def test_an_answer_that_is_no_number_is_a_failure(
    client: TestClient, body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = service_of(client).lineup.champion
    twin = Off(champion._answer)  # noqa: SLF001 - a model that fails
    monkeypatch.setattr(twin, "few", lambda rows: [float("nan")] * len(rows))
    monkeypatch.setattr(champion, "_answer", twin)
    assert client.post("/predict?explain=true", json=body).status_code == 500


def shadowing(package: ModelPackage) -> Deployment:
    one = deploy_package(package, "3", "champion")
    other = one.champion.model_copy(update={"version": "4", "role": "challenger"})
    routing = one.routing.model_copy(update={"mode": "shadow"})
    return one.model_copy(update={"challenger": other, "routing": routing})


def test_a_challenger_that_shadows_is_on_record_beside_an_explained_answer(
    serve: Serve,
    package: ModelPackage,
    log: PredictionLog,
    body: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = serve(deployment=shadowing(package))
    answer = client.post("/predict?explain=true", json=body).json()
    shadow, served = log.recent(2)
    assert (served.prediction_id, served.role) == (answer["prediction_id"], "champion")
    assert (shadow.role, shadow.served, shadow.contributions) == ("challenger", False, None)
    challenger = service_of(client).lineup.shadow
    monkeypatch.setattr(challenger, "estimate", None)  # it fails
    assert client.post("/predict?explain=true", json=body).status_code == 200
    assert log.count() == 3


@pytest.mark.usefixtures("on_sqlite")
def test_what_cannot_be_put_on_record_is_not_told(
    serve: Serve, package: ModelPackage, settings: Settings, body: dict[str, object], tmp_path: Path
) -> None:
    rules = settings.serving.log.model_copy(update={"queue_rows": 1})
    serving = settings.serving.model_copy(update={"log": rules})
    client = serve(
        settings=settings.model_copy(update={"serving": serving}), deployment=shadowing(package)
    )
    response = client.post("/predict?explain=true", json=body)  # two rows
    is_problem(response, 503, "overloaded")
    assert int(response.headers["retry-after"]) >= 1

    client = serve()
    (tmp_path / "predictions.db").unlink()
    response = client.post("/predict?explain=true", json=body)
    is_problem(response, 503, "log-unavailable")
    assert response.headers["retry-after"] == "5"
    service_of(client).writer.close(1.0)
    is_problem(client.post("/predict?explain=true", json=body), 503, "log-unavailable")


def test_more_explanations_than_may_wait_are_refused(
    client: TestClient, body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batteryops.serving.explainer._MOST_WAITING", 0)
    response = client.post("/predict?explain=true", json=body)
    is_problem(response, 503, "explainer-busy")
    assert response.headers["retry-after"] == "1"


# --- of an answer on record


def test_an_answer_on_record_is_explained_by_the_version_in_service_that_gave_it(
    client: TestClient, body: dict[str, object], package: ModelPackage
) -> None:
    answer = client.post("/predict", json=body).json()
    response = client.get(f"/explain/{answer['prediction_id']}")
    assert response.status_code == 200
    told = response.json()
    total = math.fsum((told["base_ah"], *told["contributions"].values()))
    assert told["recomputed_ah"] == pytest.approx(total, abs=1e-12)
    assert told["difference_ah"] == pytest.approx(0.0, abs=1e-5)
    sizes = [abs(added) for added in told["contributions"].values()]
    assert sizes == sorted(sizes, reverse=True)
    facts = ("capacity_ah", "vehicle_id", "model_version", "status", "baseline", "remark")
    assert {name: told[name] for name in facts} == {
        "capacity_ah": answer["capacity_ah"],
        "vehicle_id": "B0005",
        "model_version": "3",
        "status": "ok",
        "baseline": None,
        "remark": None,
    }
    assert told["features"] == {name: body[name] for name in package.view.names}
    assert told["package_fingerprint"] == package.fingerprint

    page = client.get("/openapi.json").json()
    declared = page["components"]["schemas"]["RecordedExplanation"]
    assert set(told) == set(declared["properties"])
    assert set(declared["example"]) == set(told) - {"baseline", "remark"}  # null there


def test_what_a_baseline_added_is_said_not_to_be_the_models(
    client: TestClient, body: dict[str, object], package: ModelPackage, log: PredictionLog
) -> None:
    corrected = record(package, body, baseline="3f2a91c0d4e5-v2", capacity_ah=1.5)
    log.append([corrected])
    told = client.get(f"/explain/{corrected.prediction_id}").json()
    assert told["baseline"] == "3f2a91c0d4e5-v2"
    assert told["difference_ah"] == told["recomputed_ah"] - 1.5
    assert "no part of the model" in told["remark"]


def test_a_row_of_a_batch_is_explained(
    client: TestClient, body: dict[str, object], package: ModelPackage, log: PredictionLog
) -> None:
    one = record(package, body, model_version="3")
    answered: dict[str, object] = {
        "row": 0,
        "vehicle_id": "B0005",
        **one.features,
        "capacity_ah": one.capacity_ah,
        "soh": 0.9,
        "low": 1.0,
        "high": 2.0,
        "status": "ok",
        "outside": [],
        "error": None,
        "outside_jointly": False,
        "version": "3",
        "role": "champion",
    }
    refused = dict.fromkeys(answered) | {"row": 1, "vehicle_id": "X1", "error": "no profile"}
    columns = ["row", "vehicle_id", *one.features, *AFTER]
    batch = PredictionBatch(
        batch_id=new_id(),
        request_id="r",
        answered_at=datetime.now(UTC),
        model_name="ev-soh-predictor",
        model_versions=[BatchVersion("3", "champion", package.fingerprint)],
        table=pl.DataFrame([answered, refused]).select(columns),
        latency_ms=1.0,
    )
    log.append_batch(batch)
    told = client.get(f"/explain/{batch.batch_id}:0").json()
    assert told["prediction_id"] == f"{batch.batch_id}:0"
    assert told["difference_ah"] == pytest.approx(0.0, abs=1e-9)
    for row in ("1", "2", "00", "x"):
        response = client.get(f"/explain/{batch.batch_id}:{row}")
        is_problem(response, 404, "unknown-prediction")


@pytest.mark.parametrize("name", ["42", "", "019ba7c4-0d5e-7c1a-b6f0-5d3a4b7c9e21", "%00", "a/b"])
def test_an_unknown_or_malformed_identifier_is_not_found(client: TestClient, name: str) -> None:
    assert client.get(f"/explain/{name}").status_code == 404


@pytest.fixture
def home(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a folder of packages of their own."""
    return settings.in_home(tmp_path / "home")


def test_a_version_that_went_out_of_service_explains_from_the_folder_of_packages(
    serve: Serve,
    home: Settings,
    package: ModelPackage,
    log: PredictionLog,
    body: dict[str, object],
) -> None:
    older = record(package, body, package_fingerprint="ab" * 32)
    manifest = package.manifest
    retired = record(package, body)
    log.append([older, retired])
    client = serve(settings=home)
    champion = service_of(client).lineup.champion
    object.__setattr__(champion, "fingerprint", "cd" * 32)  # as if it were another one

    told = is_problem(client.get(f"/explain/{retired.prediction_id}"), 409, "model-not-here")
    assert "`batteryops predict FILE --model 2` on the server's machine fetches it" in told
    place = folder_of(home.packages, "ev-soh-predictor", "2", manifest.fingerprint)
    shutil.copytree(package.folder, place)
    found = client.get(f"/explain/{retired.prediction_id}").json()
    assert (found["model_version"], found["difference_ah"]) == ("2", pytest.approx(0, abs=1e-9))

    shutil.copytree(place, folder_of(home.packages, "ev-soh-predictor", "2", "ab" * 32))
    is_problem(client.get(f"/explain/{older.prediction_id}"), 409, "model-not-here")


def test_a_model_that_came_from_a_folder_is_served_again_to_explain(
    client: TestClient, package: ModelPackage, log: PredictionLog, body: dict[str, object]
) -> None:
    gone = record(package, body, model_version="unregistered", package_fingerprint="ab" * 32)
    log.append([gone])
    told = is_problem(client.get(f"/explain/{gone.prediction_id}"), 409, "model-not-here")
    assert "serve it again" in told


def test_a_damaged_booster_explains_nothing_and_the_answer_does_not_say_where_it_lies(
    client: TestClient, body: dict[str, object], tmp_path: Path
) -> None:
    answer = client.post("/predict", json=body).json()
    copy = tmp_path / "damaged"
    model = service_of(client).lineup.champion
    shutil.copytree(model.package.folder, copy)
    (copy / BOOSTER).write_bytes(b"x")
    object.__setattr__(
        model, "package", ModelPackage(copy, model.package.manifest, model.package.view)
    )
    told = is_problem(client.get(f"/explain/{answer['prediction_id']}"), 409, "not-explainable")
    assert str(tmp_path) not in told


def test_an_answer_of_a_model_that_is_not_one_booster_cannot_be_explained(
    client: TestClient, body: dict[str, object]
) -> None:
    answer = client.post("/predict", json=body).json()
    unexplainable(client)
    is_problem(client.get(f"/explain/{answer['prediction_id']}"), 409, "not-explainable")


def test_without_its_database_nothing_is_looked_up(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_of(client).log, "get", out_of_reach)
    response = client.get(f"/explain/{new_id()}")
    is_problem(response, 503, "records-unavailable")
    assert response.headers["retry-after"] == "5"


def out_of_reach(_given: object) -> None:
    raise RecordsError("the prediction log is not usable")


def test_explanations_are_for_keys_that_may_ask_for_predictions(
    serve: Serve, url: str, body: dict[str, object]
) -> None:
    with ApiKeys(url) as keys:
        _, label = keys.create("bench", ["label"])
        client = serve(doors=Doors(keys.snapshot))
        wrong = {"Authorization": f"Bearer {label}"}
        for headers, status in (({}, 401), (wrong, 403)):
            asked = client.post("/predict?explain=true", json=body, headers=headers)
            assert asked.status_code == status
            assert client.get(f"/explain/{new_id()}", headers=headers).status_code == status


# --- a share of all


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def counted(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(f"{name}_total") or 0.0


def test_the_share_is_chosen_by_the_identifier(log: PredictionLog, metrics: Metrics) -> None:
    names = [new_id() for _ in range(4000)]
    tenth, other, none, all_ = (Explainer(log, metrics, share) for share in (0.1, 0.1, 0.0, 1.0))
    chosen = [name for name in names if tenth.wants(name)]
    assert 300 < len(chosen) < 500  # 400 expected, standard deviation 19
    assert chosen == [name for name in names if other.wants(name)]
    assert not any(map(none.wants, names))
    assert all(map(all_.wants, names))


def test_samples_are_put_on_record_with_their_predictions(
    log: PredictionLog, metrics: Metrics, package: ModelPackage, body: dict[str, object]
) -> None:
    records = [record(package, body) for _ in range(150)]
    log.append(records)
    explainer = Explainer(log, metrics, 1.0)
    for one in records:
        explainer.offer(one.prediction_id, package, tuple(one.features.values()), one.capacity_ah)
    explainer.close()
    explainer.close()
    expected = explain(package, tuple(records[0].features.values()))
    for one in records:
        kept = log.get(one.prediction_id)
        assert kept is not None
        assert kept.contributions == expected.contributions
    assert counted(metrics, "explanation_samples") == 150
    explainer.offer(records[0].prediction_id, package, (), 1.0)  # too late
    assert counted(metrics, "explanation_samples_dropped") == 1


def test_samples_that_find_no_room_are_dropped_and_counted(
    log: PredictionLog,
    metrics: Metrics,
    package: ModelPackage,
    body: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("batteryops.serving.explainer._MOST_SAMPLES", 2)
    one = record(package, body)
    log.append([one])
    explainer = Explainer(log, metrics, 1.0)
    go_on = threading.Event()
    explainer._thread.submit(go_on.wait)  # noqa: SLF001 - its thread is busy
    for _ in range(5):
        explainer.offer(one.prediction_id, package, tuple(one.features.values()), one.capacity_ah)
    assert counted(metrics, "explanation_samples_dropped") == 3
    go_on.set()
    explainer.close()
    assert counted(metrics, "explanation_samples") == 1  # twice the same


def test_samples_that_cannot_be_explained_are_counted_and_told_of_once(
    log: PredictionLog,
    metrics: Metrics,
    package: ModelPackage,
    body: dict[str, object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = record(package, body)
    values = tuple(one.features.values())
    explainer = Explainer(log, metrics, 1.0)
    for _ in range(2):
        explainer.offer(one.prediction_id, package, values, one.capacity_ah + 1)
    explainer.close()
    assert counted(metrics, "explanation_samples_dropped") == 2
    assert caplog.text.count("is not explained") == 1


def test_models_that_are_not_boosters_are_passed_over(
    log: PredictionLog, metrics: Metrics, package: ModelPackage
) -> None:
    manifest = package.manifest.model_copy(update={"booster": False})
    explainer = Explainer(log, metrics, 1.0)
    explainer.offer(new_id(), ModelPackage(package.folder, manifest, package.view), (), 1.0)
    explainer.close()
    assert counted(metrics, "explanation_samples_dropped") == 0


@pytest.mark.parametrize("failure", [out_of_reach, None])
def test_samples_that_cannot_be_kept_are_counted_and_the_next_have_their_turn(
    log: PredictionLog,
    package: ModelPackage,
    body: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    failure: object,
) -> None:
    metrics, one = Metrics(), record(package, body)
    log.append([one])
    explainer = Explainer(log, metrics, 1.0)
    values = tuple(one.features.values())
    with monkeypatch.context() as broken:
        broken.setattr(log, "add_explanations", failure)
        explainer.offer(one.prediction_id, package, values, one.capacity_ah)
        explainer._thread.submit(len, "").result()  # noqa: SLF001 - it is through
    assert counted(metrics, "explanation_samples_dropped") == 1
    explainer.offer(one.prediction_id, package, values, one.capacity_ah)
    explainer.close()
    assert counted(metrics, "explanation_samples") == 1
