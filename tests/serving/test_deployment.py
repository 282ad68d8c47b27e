"""A running server follows the deployment document: another line-up, or why not."""

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from batteryops.errors import PackageError
from batteryops.models.package import ModelPackage
from batteryops.records.predictions import PredictionLog
from batteryops.serving import app as app_module
from batteryops.serving.deployment import (
    DOCUMENT,
    Deployment,
    RegistryState,
    RoutingRule,
    Slot,
    deploy_package,
    load_lineup,
    read_deployment,
    write_deployment,
)
from batteryops.settings import Settings

Serve = Callable[..., TestClient]
Body = dict[str, object]


def followed(
    package: ModelPackage, generation: int, champion: str, challenger: str | None = None
) -> Deployment:
    """What the watcher of a registry writes."""

    def slot(version: str, role: str) -> Slot:
        return Slot(
            version=version, role=role, folder=package.folder, fingerprint=package.fingerprint
        )

    now = datetime.now(UTC)
    return Deployment(
        generation=generation,
        checked_at=now,
        champion=slot(champion, "champion"),
        challenger=None if challenger is None else slot(challenger, "challenger"),
        routing=RoutingRule(mode="split" if challenger else "off", share=0.2, salt="s"),
        registry=RegistryState(followed=True, reachable=True, problem=None, since=now),
    )


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "serving"


@pytest.fixture
def following(
    serve: Serve, package: ModelPackage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> TestClient:
    """A server of version 3 that follows the document in the folder."""
    monkeypatch.setattr(app_module, "_FOLLOW_S", 0.01)
    deployment = followed(package, 1, "3")
    write_deployment(deployment, folder)
    return serve(deployment=deployment, folder=folder)


def version(client: TestClient) -> Any:  # noqa: ANN401  # httpx's
    return client.get("/model-version").json()["model_version"]


def checks(client: TestClient) -> Any:  # noqa: ANN401  # httpx's
    response = client.get("/readyz")
    assert response.status_code == 200
    return response.json()["checks"]


def test_a_document_comes_back_as_it_was_written(package: ModelPackage, folder: Path) -> None:
    deployment = followed(package, 7, "3", "4")
    write_deployment(deployment, folder)
    assert read_deployment(folder) == deployment
    assert [path.name for path in folder.iterdir()] == [DOCUMENT]


def test_without_a_document_there_is_none_and_a_strange_one_is_refused(folder: Path) -> None:
    assert read_deployment(folder) is None
    folder.mkdir()
    for content in ("", "{}", "[]", '{"generation": "many"}'):
        (folder / DOCUMENT).write_text(content)
        with pytest.raises(PackageError, match="does not say what is to be served"):
            read_deployment(folder)


def test_a_package_that_is_gone_or_another_one_is_not_loaded(
    package: ModelPackage, tmp_path: Path, settings: Settings
) -> None:
    cache = settings.serving.cache
    copy = tmp_path / "copy"
    gone = deploy_package(ModelPackage(copy, package.manifest, package.view), "3", "champion")
    with pytest.raises(PackageError):
        load_lineup(gone, cache)
    shutil.copytree(package.folder, copy)
    load_lineup(gone, cache)
    other = gone.model_copy(
        update={"champion": gone.champion.model_copy(update={"fingerprint": "f" * 64})}
    )
    with pytest.raises(PackageError, match="it is another one than was to be served"):
        load_lineup(other, cache)
    for file in copy.iterdir():
        if file.suffix == ".onnx":
            file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(PackageError):
        load_lineup(gone, cache)


def test_a_model_in_service_is_taken_over_with_its_cache_and_a_promoted_one_begins_anew(
    package: ModelPackage, settings: Settings
) -> None:
    cache = settings.serving.cache
    one = load_lineup(followed(package, 1, "3"), cache)
    two = load_lineup(followed(package, 2, "3", "4"), cache, one)
    assert two.champion is one.champion
    three = load_lineup(followed(package, 3, "4"), cache, two)
    assert three.champion is not two.challenger
    assert (three.champion.version, three.champion.role) == ("4", "champion")


def test_a_running_server_serves_what_the_document_says_next(
    following: TestClient, package: ModelPackage, folder: Path, body: Body, log: PredictionLog
) -> None:
    assert version(following) == "3"
    following.post("/predict", json=body)
    assert following.post("/predict", json=body).json()["cached"]
    write_deployment(followed(package, 2, "4"), folder)
    until(lambda: bool(version(following) == "4"))
    answer = following.post("/predict", json=body).json()
    assert (answer["model_version"], answer["cached"]) == ("4", False)
    record = log.get(answer["prediction_id"])
    assert record is not None
    assert record.model_version == "4"
    document = following.get("/model-version").json()
    assert (document["generation"], document["challenger"]) == (2, None)
    assert 'version="3"' not in "".join(
        line
        for line in following.get("/metrics").text.splitlines()
        if line.startswith("model_info")
    )


def test_a_challenger_appears_and_becomes_champion(
    following: TestClient, package: ModelPackage, folder: Path, body: Body
) -> None:
    write_deployment(followed(package, 2, "3", "4"), folder)
    until(lambda: following.get("/model-version").json()["challenger"] is not None)
    challenger = following.get("/model-version").json()["challenger"]
    assert challenger == {
        "model_version": "4",
        "package_fingerprint": package.fingerprint,
        "mode": "split",
        "share": 0.2,
    }
    answers = {
        (answer["model_version"], answer["role"])
        for number in range(5, 65)
        for answer in [
            following.post("/predict", json=body | {"vehicle_id": f"B{number:04}"}).json()
        ]
    }
    assert answers == {("3", "champion"), ("4", "challenger")}
    write_deployment(followed(package, 3, "4"), folder)
    until(lambda: bool(version(following) == "4"))
    for number in range(10):
        answer = following.post("/predict", json=body | {"vehicle_id": f"B{number:04}"}).json()
        assert (answer["model_version"], answer["role"]) == ("4", "champion")


def test_a_package_that_cannot_be_served_leaves_the_one_before_in_service_and_readyz_says_so(
    following: TestClient, package: ModelPackage, folder: Path, body: Body, tmp_path: Path
) -> None:
    missing = ModelPackage(tmp_path / "missing", package.manifest, package.view)
    write_deployment(followed(missing, 2, "4"), folder)
    until(lambda: "deployment" in checks(following))
    assert checks(following)["deployment"].startswith("cannot be served, the one before it is: ")
    assert following.post("/predict", json=body).json()["model_version"] == "3"
    (folder / DOCUMENT).write_text("{")
    until(lambda: "does not say" in checks(following)["deployment"])
    write_deployment(followed(package, 3, "5"), folder)
    until(lambda: bool(version(following) == "5"))
    assert "deployment" not in checks(following)


def test_a_document_that_is_removed_changes_nothing(
    following: TestClient, package: ModelPackage, folder: Path
) -> None:
    (folder / DOCUMENT).unlink()
    time.sleep(0.1)
    assert version(following) == "3"
    write_deployment(followed(package, 2, "4"), folder)
    until(lambda: bool(version(following) == "4"))


def test_readyz_says_that_the_registry_does_not_answer_and_until_when_it_did(
    following: TestClient, package: ModelPackage, folder: Path, body: Body
) -> None:
    before = followed(package, 1, "3")
    assert "registry" not in checks(following)
    state = RegistryState(
        followed=True,
        reachable=False,
        problem="connection refused",
        since=datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
    )
    write_deployment(before.model_copy(update={"registry": state}), folder)
    until(lambda: "registry" in checks(following))
    assert checks(following)["registry"] == (
        "does not answer since 2026-03-01 12:30:00 UTC: connection refused; "
        "what was known is served on"
    )
    assert "registry_reachable 0.0" in following.get("/metrics").text
    assert following.post("/predict", json=body).status_code == 200
    write_deployment(before, folder)
    until(lambda: "registry" not in checks(following))


def test_a_look_that_fails_is_followed_by_another(
    serve: Serve,
    package: ModelPackage,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(app_module, "_FOLLOW_S", 0.01)
    client = serve(deployment=followed(package, 1, "3"), folder=folder)
    service = client.app.state.service  # type: ignore[attr-defined]  # FastAPI's
    observe = service.observe
    failed: list[int] = []

    def fails_once() -> None:
        if not failed:
            failed.append(1)
            raise OSError("no space left on device")
        observe()

    monkeypatch.setattr(service, "observe", fails_once)
    until(lambda: bool(failed))
    write_deployment(followed(package, 2, "4"), folder)
    until(lambda: service.lineup.champion.version == "4")
    assert "no space left on device" in caplog.text


def test_an_administrator_has_the_registry_looked_at_now(
    serve: Serve, package: ModelPackage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "_FOLLOW_S", 0.01)
    first = followed(package, 1, "3")
    first = first.model_copy(update={"checked_at": datetime.now(UTC) - timedelta(hours=1)})
    write_deployment(first, folder)
    client = serve(
        deployment=first,
        folder=folder,
        refresh=lambda: write_deployment(followed(package, 2, "4"), folder),
    )
    answer = client.post("/admin/refresh")
    assert answer.status_code == 200
    assert answer.json()["models"] == [{"model_version": "4", "role": "champion"}]
    assert (answer.json()["generation"], answer.json()["problem"]) == (2, None)
    assert answer.json()["registry"]["reachable"] is True


def test_an_administrator_is_told_at_once_of_a_package_that_cannot_be_served(
    serve: Serve,
    package: ModelPackage,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app_module, "_FOLLOW_S", 0.01)
    first = followed(package, 1, "3")
    write_deployment(first, folder)
    missing = ModelPackage(tmp_path / "missing", package.manifest, package.view)
    client = serve(
        deployment=first,
        folder=folder,
        refresh=lambda: write_deployment(followed(missing, 2, "4"), folder),
    )
    answer = client.post("/admin/refresh")
    assert answer.status_code == 200
    assert answer.json()["models"] == [{"model_version": "3", "role": "champion"}]
    assert "missing" in answer.json()["problem"]


def test_a_watcher_that_does_not_look_is_a_problem_document(
    serve: Serve, package: ModelPackage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "_REFRESHED_WITHIN_S", 0.05)
    first = followed(package, 1, "3")
    write_deployment(first, folder)
    client = serve(deployment=first, folder=folder, refresh=lambda: None)
    answer = client.post("/admin/refresh")
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:batteryops:problem:not-ready"
    assert answer.headers["retry-after"] == "5"


def test_a_server_of_one_package_follows_nothing(client: TestClient) -> None:
    answer = client.post("/admin/refresh")
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:batteryops:problem:not-following"
    assert isinstance(client.app, FastAPI)
    assert not client.app.state.service.has_news()
