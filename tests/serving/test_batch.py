"""POST /predict/batch: many rows, each answered or refused by itself, one record."""

import io
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient

from batteryops.errors import RecordsError
from batteryops.models.many_rows import estimate_columns
from batteryops.models.package import ModelPackage
from batteryops.records.predictions import PredictionBatch, PredictionLog
from batteryops.serving import batch as batch_module
from batteryops.serving import batch_routes
from batteryops.serving.arrow_shape import END, arrow_shape
from batteryops.serving.batch_forms import ARROW, JSON, PARQUET, read_batch
from batteryops.serving.deployment import Deployment, RoutingRule, Slot, deploy_package
from batteryops.serving.lineup import Mode
from batteryops.settings import Settings

Body = dict[str, object]
FORMS = (JSON, ARROW, PARQUET)


def is_problem(response: Any, status: int, kind: str) -> dict[str, Any]:  # noqa: ANN401  # httpx's
    """Assert that a response is that problem document, and give it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == f"urn:batteryops:problem:{kind}"
    assert "Traceback" not in response.text
    return document


def packed(rows: list[Body] | pl.DataFrame, form: str) -> bytes:
    """Rows in a form."""
    if form == JSON:
        objects = rows.to_dicts() if isinstance(rows, pl.DataFrame) else rows
        return json.dumps({"rows": objects}).encode()
    table = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows)
    file = io.BytesIO()
    if form == ARROW:
        table.write_ipc_stream(file)
    else:
        table.write_parquet(file)
    return file.getvalue()


def unpacked(response: Any) -> list[dict[str, Any]]:  # noqa: ANN401  # httpx's
    """The rows of an answer; `outside` is a list in each form."""
    assert response.status_code == 200, response.text
    form = response.headers["content-type"]
    if form == JSON:
        rows: list[dict[str, Any]] = response.json()["rows"]
        return rows
    read = pl.read_ipc_stream if form == ARROW else pl.read_parquet
    rows = read(io.BytesIO(response.content)).to_dicts()
    return [row | {"outside": row["outside"].split(",") if row["outside"] else []} for row in rows]


def two(package: ModelPackage, mode: Mode, share: float) -> Deployment:
    """Version 3 as champion, the same package as challenger, version 4."""
    challenger = Slot(
        version="4", role="challenger", folder=package.folder, fingerprint=package.fingerprint
    )
    rule = RoutingRule(mode=mode, share=share, salt="3 against 4")
    alone = deploy_package(package, "3", "champion")
    return alone.model_copy(update={"challenger": challenger, "routing": rule})


def ask(
    client: TestClient, rows: list[Body] | pl.DataFrame, form: str = JSON, **headers: str
) -> Any:  # noqa: ANN401  # httpx's
    """Send a batch."""
    return client.post(
        "/predict/batch", content=packed(rows, form), headers={"Content-Type": form} | headers
    )


@pytest.mark.parametrize("form", FORMS)
def test_each_row_gets_the_answer_that_it_gets_alone(
    client: TestClient, body: Body, form: str
) -> None:
    sent = [
        body,
        body | {"vehicle_id": "EV-0001", "discharge_time_s": 2500.0},
        body | {"temperature_C_max": 61.0},
    ]
    response = ask(client, sent, form)
    assert response.headers["content-type"] == form
    for row, alone in zip(
        unpacked(response), [client.post("/predict", json=one).json() for one in sent], strict=True
    ):
        assert row["soh"] == pytest.approx(alone["soh"], abs=1e-5)
        assert row["capacity_ah"] == pytest.approx(alone["capacity_ah"], abs=1e-5)
        assert row["low_ah"] == pytest.approx(alone["interval"]["low_ah"], abs=1e-5)
        assert row["high_ah"] == pytest.approx(alone["interval"]["high_ah"], abs=1e-5)
        assert (row["outside"], row["outside_jointly"]) == (
            alone["domain"]["features"],
            alone["domain"]["joint"],
        )
        same = ("vehicle_id", "status", "model_version", "role")
        assert {name: row[name] for name in same} == {name: alone[name] for name in same}
        assert row["error"] is None


@pytest.mark.parametrize("form", FORMS)
def test_a_bad_row_is_refused_by_itself_in_the_words_of_a_single_request(
    client: TestClient, body: Body, form: str
) -> None:
    bad: list[Body] = [
        body | {"voltage_V_mean": 3529.8},
        body | {"voltage_V_mean": None, "delta_T_C": 9999.0},
        body | {"vehicle_id": "Zeppelin"},
        body | {"vehicle_id": "Vehicle 3"},
        body | {"vehicle_id": ""},
        body | {"vehicle_id": None},
    ]
    response = ask(client, [body, *bad, body], form)
    first, *refused, last = unpacked(response)
    assert (first["status"], last["status"]) == ("ok", "ok")
    for sent, row in zip(bad, refused, strict=True):
        alone = client.post("/predict", json=sent).json()
        faults = [fault["detail"] for fault in alone.get("errors", [])]
        if alone["type"].endswith("unknown-asset"):
            faults = [alone["detail"]]
        assert row["error"] == ("; ".join(faults) or alone["detail"])
        assert row["status"] == "refused"
        assert row["prediction_id"] is None
        assert (row["soh"], row["capacity_ah"], row["low_ah"], row["model_version"]) == (None,) * 4
    counted = [response.headers[f"batch-{name}"] for name in ("rows", "answered", "refused")]
    assert counted == ["8", "2", "6"]


def test_what_json_can_say_and_no_column_can_is_refused_by_row(
    client: TestClient, body: Body
) -> None:
    sent: list[Any] = [
        body | {"voltage_V_mean": "3.5"},
        body | {"voltage_V_mean": True},
        body | {"discharge_time_s": 10**30},
        body | {"more": 1},
        {"vehicle_id": "B0005"},
        5,
        None,
        body | {"vehicle_id": 7},
        body | {"vehicle_id": "EV-\u0000"},
        body,
    ]
    answer = ask(client, sent).json()
    assert (answer["n_rows"], answer["n_answered"], answer["n_refused"]) == (10, 1, 9)
    errors = [row["error"] for row in answer["rows"]]
    assert [error.partition(",")[0] for error in errors[:4]] == [
        "voltage_V_mean is '3.5' (str)",
        "voltage_V_mean is True (bool)",
        "discharge_time_s is 1e+30",
        "unknown field: more; expected vehicle_id",
    ]
    assert errors[4].count("is missing") == 7
    assert errors[5:7] == [
        "the row is 5, expected an object",
        "the row is None, expected an object",
    ]
    assert errors[7:9] == ["vehicle_id is not a name: expected 1 to 128 printable characters"] * 2
    assert errors[9] is None


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_of_nothing_but_bad_rows_is_answered_and_on_record(
    client: TestClient, body: Body, form: str, log: PredictionLog
) -> None:
    response = ask(client, [body | {"voltage_V_mean": 3529.8}] * 2, form)
    assert [row["status"] for row in unpacked(response)] == ["refused", "refused"]
    assert log.count() == 0
    assert log.get(f"{response.headers['batch-id']}:0") is None


def test_every_answered_row_is_on_record_under_its_identifier(
    client: TestClient, body: Body, log: PredictionLog, package: ModelPackage
) -> None:
    sent = [body, body | {"vehicle_id": "Zeppelin"}, body | {"temperature_C_max": 61.0}]
    response = ask(client, sent, **{"X-Request-ID": "order-66"})
    answer = response.json()
    assert log.count() == 2
    assert [row["prediction_id"] for row in answer["rows"]] == [
        f"{answer['batch_id']}:0",
        None,
        f"{answer['batch_id']}:2",
    ]
    record = log.get(answer["rows"][2]["prediction_id"])
    assert record is not None
    assert (record.request_id, record.status) == ("order-66", "out_of_domain")
    assert record.outside == ("temperature_C_max",)
    assert record.features == {name: sent[2][name] for name in package.view.names}
    assert record.package_fingerprint == package.fingerprint
    assert answer["rows"][2]["capacity_ah"] is None  # withheld
    assert 1.0 < record.capacity_ah < 2.5  # and kept, to be judged later


def test_a_server_that_is_set_to_gives_numbers_outside_of_the_domain(
    serve: Callable[..., TestClient], settings: Settings, body: Body
) -> None:
    serving = settings.serving.model_copy(update={"out_of_domain": "give"})
    client = serve(settings=settings.model_copy(update={"serving": serving}))
    (row,) = ask(client, [body | {"temperature_C_max": 61.0}]).json()["rows"]
    assert row["status"] == "out_of_domain"
    assert row["soh"] == row["capacity_ah"] / 2.0


@pytest.mark.parametrize("kind", [pl.Float32, pl.Int16, pl.UInt32, pl.Decimal(12, 2)])
@pytest.mark.parametrize("names", [pl.String, pl.Categorical, pl.Enum(["B0005", "B0006"])])
def test_any_type_of_numbers_and_dictionaries_of_names_are_taken(
    client: TestClient, body: Body, kind: pl.DataType, names: pl.DataType
) -> None:
    whole = body | {"discharge_time_s": 3690}
    table = pl.DataFrame([whole, whole | {"vehicle_id": "B0006"}]).with_columns(
        pl.col("discharge_time_s").cast(kind), pl.col("vehicle_id").cast(names)
    )
    rows = unpacked(ask(client, table, ARROW))
    assert [row["vehicle_id"] for row in rows] == ["B0005", "B0006"]
    assert rows[0]["capacity_ah"] == pytest.approx(
        client.post("/predict", json=whole).json()["capacity_ah"], abs=1e-5
    )


def test_nan_and_infinity_in_a_table_are_refused_by_row(
    client: TestClient, body: Body, log: PredictionLog
) -> None:
    sent = [body, body | {"delta_T_C": float("nan")}, body | {"delta_T_C": float("-inf")}]
    response = ask(client, sent, ARROW)
    errors = [row["error"] for row in unpacked(response)]
    assert [error and error.partition(",")[0] for error in errors] == [
        None,
        "delta_T_C is NaN",
        "delta_T_C is -infinity",
    ]
    assert log.count() == 1


@pytest.mark.parametrize("form", [ARROW, PARQUET])
def test_columns_are_named_that_are_missing_unknown_or_no_numbers(
    client: TestClient, body: Body, form: str
) -> None:
    table = pl.DataFrame([body]).drop("delta_T_C")
    faults = is_problem(ask(client, table, form), 422, "invalid-request")["errors"]
    assert faults == [{"detail": "column delta_T_C is missing, expected numbers"}]
    table = pl.DataFrame([body | {"more": 1, "current_A_mean": "-1.8"}]).drop("vehicle_id")
    faults = is_problem(ask(client, table, form), 422, "invalid-request")["errors"]
    assert [fault["detail"].partition(";")[0] for fault in faults] == [
        "column vehicle_id is missing, expected the assets' names",
        "column current_A_mean is String, expected numbers",
        "unknown column: more",
    ]


@pytest.mark.parametrize("form", FORMS)
def test_a_body_in_one_form_is_answered_in_the_one_that_is_asked_for(
    client: TestClient, body: Body, form: str
) -> None:
    for wanted in FORMS:
        response = ask(client, [body], form, Accept=wanted)
        assert response.headers["content-type"] == wanted
        assert len(unpacked(response)) == 1


def test_a_parquet_file_holds_what_is_told_of_the_whole(client: TestClient, body: Body) -> None:
    response = ask(client, [body], PARQUET)
    told = pl.read_parquet_metadata(io.BytesIO(response.content))
    assert told["batteryops.batch_id"] == response.headers["batch-id"]
    assert told["batteryops.n_answered"] == "1"


@pytest.mark.parametrize(
    ("form", "content", "expected"),
    [
        (JSON, b"{", (400, "malformed-json")),
        (JSON, b"[]", (400, "malformed-json")),
        (JSON, b'{"rows": {}}', (422, "invalid-request")),
        (JSON, b'{"rows": [], "more": 1}', (422, "invalid-request")),
        (JSON, b'{"rows": []}', (422, "invalid-request")),
        (ARROW, b"", (400, "malformed-table")),
        (ARROW, b"not a table at all, but long enough", (400, "malformed-table")),
        (PARQUET, b"", (400, "malformed-table")),
        (PARQUET, b"PAR1 not a table at all PAR1", (400, "malformed-table")),
        ("text/csv", b"a,b", (415, "unknown-form")),
    ],
)
def test_what_is_no_batch_is_a_problem(
    client: TestClient, log: PredictionLog, form: str, content: bytes, expected: tuple[int, str]
) -> None:
    response = client.post("/predict/batch", content=content, headers={"Content-Type": form})
    is_problem(response, *expected)
    assert log.count() == 0


@pytest.mark.parametrize("form", [ARROW, PARQUET])
def test_a_table_that_is_cut_off_or_damaged_is_a_problem_or_an_answer(
    client: TestClient, body: Body, form: str
) -> None:
    whole = packed([body] * 50, form)
    random = np.random.default_rng(4)
    for _ in range(40):
        damaged = bytearray(whole[: int(random.integers(1, len(whole)))])
        if random.uniform() < 0.5:
            damaged = bytearray(whole)
            for at in random.integers(0, len(damaged), 4):
                damaged[at] ^= int(random.integers(1, 256))
        response = client.post(
            "/predict/batch", content=bytes(damaged), headers={"Content-Type": form}
        )
        assert response.status_code in {200, 400, 413, 422}, response.text


@pytest.mark.parametrize("form", FORMS)
def test_more_rows_than_may_be_sent_are_refused(
    serve: Callable[..., TestClient], settings: Settings, body: Body, form: str
) -> None:
    limits = settings.serving.limits.model_copy(update={"batch_rows": 3})
    serving = settings.serving.model_copy(update={"limits": limits})
    client = serve(settings=settings.model_copy(update={"serving": serving}))
    assert ask(client, [body] * 3, form).status_code == 200
    is_problem(ask(client, [body] * 4, form), 413, "body-too-large")
    page = client.get("/openapi.json").json()["paths"]["/predict/batch"]["post"]
    sent = page["requestBody"]["content"][JSON]["schema"]["properties"]["rows"]
    assert sent["maxItems"] == 3
    assert "At most 3 rows" in page["description"]


def unfolding_to(settings: Settings, most_bytes: int) -> Settings:
    limits = settings.serving.limits.model_copy(update={"batch_unfolded_bytes": most_bytes})
    serving = settings.serving.model_copy(update={"limits": limits})
    return settings.model_copy(update={"serving": serving})


@pytest.mark.parametrize("form", [ARROW, PARQUET])
def test_a_table_that_unfolds_to_too_much_is_refused_before_it_is_unfolded(
    serve: Callable[..., TestClient],
    settings: Settings,
    body: Body,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = serve(settings=unfolding_to(settings, 2**23))
    names = [f"{number:04}" + "x" * 40_000 for number in range(400)]  # 16 MB
    table = pl.DataFrame([body | {"vehicle_id": name} for name in names])
    file = io.BytesIO()
    if form == ARROW:
        table.write_ipc_stream(file, compression="zstd")
    else:
        table.write_parquet(file, compression="zstd")
    bomb = file.getvalue()
    assert len(bomb) < 2**18
    read: list[int] = []
    for name in ("read_ipc_stream", "read_parquet"):
        whole = getattr(pl, name)
        monkeypatch.setattr(pl, name, lambda given, whole=whole: _noted(whole(given), read))
    refused = client.post("/predict/batch", content=bomb, headers={"Content-Type": form})
    told = is_problem(refused, 413, "body-too-large")
    assert "the table unfolds to 16" in told["detail"]
    assert "expected at most 8388608" in told["detail"]
    assert sum(read) == 0
    assert len(unpacked(ask(client, [body] * 400, form))) == 400


def _noted(table: pl.DataFrame, heights: list[int]) -> pl.DataFrame:
    heights.append(table.height)
    return table


def test_a_stream_of_300_kilobytes_that_unfolds_to_half_a_gigabyte_is_refused(
    client: TestClient, body: Body
) -> None:
    file = io.BytesIO()
    long = [f"{number:04}" + "x" * 100_000 for number in range(100)]
    pl.DataFrame([body | {"vehicle_id": name} for name in long]).write_ipc_stream(
        file, compression="zstd"
    )
    once = file.getvalue()
    start, end = arrow_shape(once).schema_end, len(once) - len(END)
    bomb = once[:end] + 49 * once[start:end] + END
    assert len(bomb) < 2**20
    refused = client.post("/predict/batch", content=bomb, headers={"Content-Type": ARROW})
    assert "unfolds to 50" in is_problem(refused, 413, "body-too-large")["detail"]


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical])
@pytest.mark.parametrize("form", [ARROW, PARQUET])
def test_one_long_name_that_many_rows_share_is_refused_by_row_and_not_kept(
    client: TestClient,
    body: Body,
    form: str,
    kind: Any,  # noqa: ANN401  # a type of Polars
) -> None:
    table = pl.DataFrame([body | {"vehicle_id": "x" * 10_000}] * 2000)
    response = ask(client, table.cast({"vehicle_id": kind}), form)
    rows = unpacked(response)
    assert {row["vehicle_id"] for row in rows} == {None}
    assert all("is not a name" in row["error"] for row in rows)


def test_json_has_a_limit_of_its_own_as_others_wait_while_it_is_read(
    serve: Callable[..., TestClient], settings: Settings, body: Body
) -> None:
    limits = settings.serving.limits.model_copy(update={"batch_json_bytes": 1024})
    serving = settings.serving.model_copy(update={"limits": limits})
    client = serve(settings=settings.model_copy(update={"serving": serving}))
    assert len(packed([body] * 9, JSON)) > 1024
    is_problem(ask(client, [body] * 9, JSON), 413, "body-too-large")
    assert ask(client, [body] * 50, ARROW).status_code == 200
    assert "1024 bytes in JSON" in client.get("/openapi.json").text


@pytest.mark.parametrize("count", [1, 249, 250, 251, 600])
def test_an_answer_in_json_is_whole_however_many_pieces_it_is_made_in(
    client: TestClient, body: Body, count: int
) -> None:
    table = pl.DataFrame([body]).select(pl.all().repeat_by(count).explode())
    answer = ask(client, table, ARROW, Accept=JSON)
    assert int(answer.headers["content-length"]) == len(answer.content)
    told = answer.json()
    assert (told["n_rows"], len(told["rows"])) == (count, count)
    numbers = [int(row["prediction_id"].split(":")[1]) for row in told["rows"]]
    assert numbers == list(range(count))


def test_a_body_that_is_too_large_is_refused(
    serve: Callable[..., TestClient], settings: Settings, body: Body
) -> None:
    limits = settings.serving.limits.model_copy(update={"batch_body_bytes": 1000})
    serving = settings.serving.model_copy(update={"limits": limits})
    client = serve(settings=settings.model_copy(update={"serving": serving}))
    is_problem(ask(client, [body] * 50, ARROW), 413, "body-too-large")


def test_a_compressed_body_is_refused(client: TestClient, body: Body) -> None:
    response = ask(client, [body], ARROW, **{"Content-Encoding": "gzip"})
    is_problem(response, 415, "unknown-form")


def test_without_the_log_no_answer_is_given(
    client: TestClient, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_batch: object) -> None:
        raise RecordsError("database or disk is full")

    monkeypatch.setattr(client.app.state.service.log, "append_batch", fail)  # type: ignore[attr-defined]  # FastAPI's
    response = ask(client, [body])
    document = is_problem(response, 503, "log-unavailable")
    assert document["detail"] == "database or disk is full"
    assert response.headers["retry-after"] == "5"


def test_a_challenger_answers_its_vehicles_rows(
    serve: Callable[..., TestClient],
    package: ModelPackage,
    body: Body,
    log: PredictionLog,
) -> None:
    client = serve(deployment=two(package, "split", 0.5))
    sent = [body | {"vehicle_id": f"EV-{number % 40:04}"} for number in range(200)]
    response = ask(client, sent, ARROW)
    rows = unpacked(response)
    by_vehicle = {
        one["vehicle_id"]: client.post("/predict", json=one).json()["model_version"]
        for one in sent[:40]
    }
    assert set(by_vehicle.values()) == {"3", "4"}
    assert [row["model_version"] for row in rows] == [by_vehicle[row["vehicle_id"]] for row in rows]
    assert {(row["model_version"], row["role"]) for row in rows} == {
        ("3", "champion"),
        ("4", "challenger"),
    }
    for row in rows[:5]:
        record = log.get(row["prediction_id"])
        assert record is not None
        assert record.model_version == row["model_version"]


def shown(client: TestClient, log: PredictionLog, request_id: str) -> pl.DataFrame:
    """What is on record of a request, once a challenger has seen all that it is to see."""
    batches = client.app.state.batches  # type: ignore[attr-defined]  # FastAPI's
    batches._shadows.submit(int).result(30)  # noqa: SLF001 - nobody else waits for it
    now = datetime.now(UTC)
    frames = log.frames(now - timedelta(minutes=5), now + timedelta(minutes=5))
    return pl.concat(frames).filter(request_id=request_id)


@pytest.mark.parametrize("form", FORMS)
def test_a_shadow_is_on_record_row_by_row_and_the_champions_answers_go_out(
    serve: Callable[..., TestClient],
    package: ModelPackage,
    body: Body,
    log: PredictionLog,
    form: str,
) -> None:
    client = serve(deployment=two(package, "shadow", 0.5))
    sent = [body | {"discharge_time_s": 2500.0 + number} for number in range(20)]
    sent[7] |= {"vehicle_id": "Zeppelin"}
    response = ask(client, sent, form, **{"X-Request-ID": "both"})
    rows = [row for row in unpacked(response) if row["error"] is None]
    assert {(row["role"], row["model_version"]) for row in rows} == {("champion", "3")}
    kept = shown(client, log, "both")
    served, unheard = (kept.filter(served=went_out) for went_out in (True, False))
    assert served["prediction_id"].to_list() == [row["prediction_id"] for row in rows]
    assert set(unheard.select("role", "model_version").rows()) == {("challenger", "4")}
    same = ("vehicle_id", "capacity_ah", "soh", "capacity_low_ah", "status", "answered_at")
    assert unheard.select(same).equals(served.select(same))
    number = pl.col("prediction_id").str.split(":").list.get(1)
    assert unheard.select(number).equals(served.select(number))
    record = log.get(unheard["prediction_id"][0])
    assert record is not None
    assert (record.served, record.role, record.request_id) == (False, "challenger", "both")
    exposed = client.get("/metrics").text
    assert 'shadow_predictions_total{version="4"} 19.0' in exposed
    assert 'predictions_total{role="champion",version="3"} 19.0' in exposed


@pytest.mark.parametrize("failure", [RuntimeError("no answer"), RecordsError("disk is full")])
def test_a_shadow_that_fails_takes_nothing_from_a_batch(  # noqa: PLR0913, PLR0917 - fixtures
    serve: Callable[..., TestClient],
    package: ModelPackage,
    body: Body,
    log: PredictionLog,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
) -> None:
    client = serve(deployment=two(package, "shadow", 0.5))
    append = PredictionLog.append_batch

    def fail(self: PredictionLog, batch: PredictionBatch) -> None:
        if not batch.model_versions[0].served:
            raise failure
        append(self, batch)

    monkeypatch.setattr(PredictionLog, "append_batch", fail)
    for name in ("one", "two", "three", "four"):  # its place is given back each time
        rows = unpacked(ask(client, [body], **{"X-Request-ID": name}))
        assert [row["status"] for row in rows] == ["ok"]
        assert shown(client, log, name)["served"].to_list() == [True]
    assert caplog.text.count(str(failure)) == 4
    monkeypatch.undo()
    ask(client, [body], **{"X-Request-ID": "again"})
    assert shown(client, log, "again")["served"].to_list() == [True, False]


@pytest.mark.parametrize("mode", ["shadow", "split"])
def test_a_challenger_that_crashes_takes_nothing_from_a_batch_and_its_rows_are_on_record(  # noqa: PLR0913, PLR0917 - fixtures
    serve: Callable[..., TestClient],
    package: ModelPackage,
    body: Body,
    log: PredictionLog,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
) -> None:
    client = serve(deployment=two(package, mode, 0.5))
    lineup = client.app.state.service.lineup  # type: ignore[attr-defined]  # FastAPI's

    def crashes(asked: ModelPackage, *given: Any) -> Any:  # noqa: ANN401 - as it is called
        if asked is lineup.challenger.package:
            raise RuntimeError("a broken model")
        return estimate_columns(asked, *given)

    monkeypatch.setattr(batch_module, "estimate_columns", crashes)
    given = [body | {"vehicle_id": f"B{n:04}"} for n in range(5, 25)]
    theirs = [
        mode == "split" and lineup.answering(row["vehicle_id"]) is lineup.challenger
        for row in given
    ]
    rows = unpacked(ask(client, given, **{"X-Request-ID": "half"}))
    assert [row["status"] for row in rows] == ["refused" if one else "ok" for one in theirs]
    assert {row["model_version"] for row in rows} == ({"3", None} if any(theirs) else {"3"})
    assert shown(client, log, "half").height == theirs.count(False)
    far = datetime.now(UTC) + timedelta(days=1)
    told = pl.concat(log.frames(far - timedelta(days=2), far, failed=True))
    failed = told.filter(pl.col("status") == "failed")
    assert failed.height == (20 if mode == "shadow" else theirs.count(True)) > 0
    assert failed["capacity_ah"].null_count() == failed.height
    assert set(failed.select("model_version", "role", "served").iter_rows()) == {
        ("4", "challenger", False)
    }


def test_a_shadow_that_is_too_slow_is_not_waited_for(
    serve: Callable[..., TestClient],
    package: ModelPackage,
    body: Body,
    log: PredictionLog,
) -> None:
    client = serve(deployment=two(package, "shadow", 0.5))
    may_end = threading.Event()
    batches = client.app.state.batches  # type: ignore[attr-defined]  # FastAPI's
    batches._shadows.submit(may_end.wait, 30)  # noqa: SLF001 - as a slow challenger would
    for _ in range(4):
        assert ask(client, [body, body], **{"X-Request-ID": "many"}).status_code == 200
    may_end.set()
    assert shown(client, log, "many")["served"].to_list() == [True] * 8 + [False] * 4
    exposed = client.get("/metrics").text
    assert 'shadow_predictions_dropped_total{version="4"} 4.0' in exposed


def test_a_batch_ends_with_the_line_up_that_it_began_with(
    client: TestClient, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]  # FastAPI's
    began_with = service.lineup

    def promoted_meanwhile(*given: Any) -> Any:  # noqa: ANN401  # as they come
        questions = read_batch(*given)
        service.lineup = None
        return questions

    monkeypatch.setattr(batch_routes, "read_batch", promoted_meanwhile)
    try:
        assert unpacked(ask(client, [body]))[0]["model_version"] == "3"
    finally:
        service.lineup = began_with


def test_predictions_of_batches_are_counted(client: TestClient, body: Body) -> None:
    ask(client, [body] * 5 + [body | {"vehicle_id": "Zeppelin"}])
    exposed = client.get("/metrics").text
    assert 'predictions_total{role="champion",version="3"} 5.0' in exposed


def test_more_batches_than_may_wait_are_turned_away(
    client: TestClient, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = client.app.state.batches  # type: ignore[attr-defined]  # FastAPI's
    monkeypatch.setattr(batches, "_taken", 8)
    response = ask(client, [body])
    is_problem(response, 503, "overloaded")
    assert response.headers["retry-after"] == "5"
    monkeypatch.setattr(batches, "_taken", 0)
    assert ask(client, [body]).status_code == 200


def test_a_place_is_free_again_after_a_refusal(client: TestClient) -> None:
    for _ in range(20):
        response = client.post("/predict/batch", content=b"{", headers={"Content-Type": JSON})
        is_problem(response, 400, "malformed-json")


def test_while_a_batch_is_answered_other_requests_go_on(
    client: TestClient, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = client.app.state.service.log  # type: ignore[attr-defined]  # FastAPI's
    append, begun, may_end = log.append_batch, threading.Event(), threading.Event()

    def slowly(batch: object) -> None:
        begun.set()
        assert may_end.wait(10)
        append(batch)

    monkeypatch.setattr(log, "append_batch", slowly)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(ask(client, [body])))
    asking.start()
    assert begun.wait(10)
    assert client.post("/predict", json=body).status_code == 200
    assert not answers  # not before it is on record
    may_end.set()
    asking.join(10)
    assert answers[0].status_code == 200
