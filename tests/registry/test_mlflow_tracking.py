"""The registry on a real MLflow with SQLite: runs, versions, aliases, packages."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from batteryops.errors import PackageError, RegistryError
from batteryops.models.package import ModelPackage, load_package
from batteryops.registry import mlflow_tracking as module
from batteryops.registry.mlflow_tracking import ModelRegistry, ModelVersion

Log = Callable[..., str]


def register(registry: ModelRegistry, log: Log, *, gates_passed: str = "true") -> ModelVersion:
    return registry.register(log(), tags={"gates_passed": gates_passed})


def client(registry: ModelRegistry) -> Any:  # noqa: ANN401 - MLflow publishes no types
    """MLflow's own view of the store."""
    return MlflowClient(registry.tracking_uri, registry.tracking_uri)


def test_a_run_holds_what_was_logged_as_mlflow_itself_reads_it(
    registry: ModelRegistry, log: Log, package: ModelPackage, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("<p>")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "diagnostics.png").write_bytes(b"\x89PNG")

    run_id = log(artifacts=[tmp_path / "report.html", tmp_path / "plots"])

    run = client(registry).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "discharge_summary on nasa"
    assert run.data.params == {"n_estimators": "3", "tree_method": "hist"}
    assert run.data.metrics == {
        "random.mae_ah": 0.017,
        "unseen_assets/mae_ah": 0.06,
        "soh_error_pct": 0.9,
    }
    assert run.data.tags["environment"] == "test"
    assert run.data.tags["package_fingerprint"] == package.fingerprint
    listed = {item.path for item in client(registry).list_artifacts(run_id, "package")}
    assert listed == {f"package/{path.name}" for path in package.folder.iterdir()}
    top = {item.path for item in client(registry).list_artifacts(run_id)}
    assert top == {"package", "report.html", "plots"}


def test_artifacts_lie_under_the_artifact_root(log: Log, tmp_path: Path) -> None:
    log()

    assert (tmp_path / "artifacts").is_dir()
    assert not Path("mlruns").exists()


def test_the_artifact_root_may_be_a_uri(
    open_registry: Callable[..., ModelRegistry], package: ModelPackage, tmp_path: Path
) -> None:
    place = tmp_path / "with space"
    registry = open_registry(artifact_root=place.as_uri(), experiment="elsewhere")
    run_id = registry.log_run(
        run_name="r", package_folder=package.folder, parameters={}, metrics={}, tags={}
    )
    version = registry.register(run_id, tags={})

    assert load_package(registry.package_of(version.version, tmp_path / "cache")).manifest
    assert list(place.rglob("model.ubj"))


def test_a_registered_version_is_a_candidate_with_its_runs_metrics(
    registry: ModelRegistry, log: Log, package: ModelPackage
) -> None:
    run_id = log()

    version = registry.register(run_id, tags={"gates_passed": "false", "why": "first"})

    assert version.version == 1
    assert version.run_id == run_id
    assert version.status == "candidate"
    assert version.aliases == ()
    assert version.gates_passed is False
    assert version.package_fingerprint == package.fingerprint
    assert version.tags["why"] == "first"
    assert version.metrics["unseen_assets/mae_ah"] == 0.06
    assert abs(version.created_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert registry.version(1) == version
    assert registry.versions() == [version]


def test_a_version_is_a_json_document(registry: ModelRegistry, log: Log) -> None:
    run_id = log(metrics={"r2": float("nan"), "mae_ah": 0.02})

    document = registry.register(run_id, tags={"gates_passed": "true"}).to_json()

    assert document["metrics"] == {"r2": None, "mae_ah": 0.02}
    assert (document["version"], document["status"], document["aliases"]) == (1, "candidate", [])
    assert document["gates_passed"] is True


def test_a_version_whose_gates_nobody_noted_says_so(registry: ModelRegistry, log: Log) -> None:
    assert registry.register(log(), tags={}).gates_passed is None


def test_versions_are_listed_oldest_first_page_by_page(
    registry: ModelRegistry, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    run_id = log()
    for _ in range(5):
        registry.register(run_id, tags={})

    assert [version.version for version in registry.versions()] == [1, 2, 3, 4, 5]


def test_an_empty_registry_has_no_versions_and_no_aliases(registry: ModelRegistry) -> None:
    assert registry.versions() == []
    assert registry.find_alias("champion") is None
    with pytest.raises(RegistryError, match="no version of ev-soh-predictor is @champion"):
        registry.version_at("@champion")


def test_an_alias_moves_from_version_to_version(registry: ModelRegistry, log: Log) -> None:
    for _ in range(2):
        register(registry, log)

    assert registry.set_alias(1, "champion").status == "champion"
    assert registry.set_alias(2, "@champion").status == "champion"

    assert [version.status for version in registry.versions()] == ["candidate", "champion"]
    assert registry.version_at("champion").version == 2
    assert registry.version_at("@champion").aliases == ("champion",)


def test_another_client_sees_the_alias_at_once(
    registry: ModelRegistry, log: Log, open_registry: Callable[..., ModelRegistry]
) -> None:
    register(registry, log)
    other = open_registry()
    assert other.find_alias("champion") is None

    registry.set_alias(1, "champion")

    found = other.find_alias("champion")
    assert found is not None
    assert found.version == 1


def test_a_challenger_that_becomes_champion_no_longer_challenges(
    registry: ModelRegistry, log: Log
) -> None:
    register(registry, log)
    assert registry.set_alias(1, "challenger").status == "challenger"

    promoted = registry.set_alias(1, "champion")

    assert promoted.aliases == ("champion",)
    assert registry.find_alias("challenger") is None


def test_the_champion_cannot_challenge_itself(registry: ModelRegistry, log: Log) -> None:
    register(registry, log)
    registry.set_alias(1, "champion")

    with pytest.raises(RegistryError, match="version 1 is @champion and cannot challenge itself"):
        registry.set_alias(1, "challenger")


def test_an_archived_version_loses_its_alias_and_comes_back_with_one(
    registry: ModelRegistry, log: Log
) -> None:
    register(registry, log)
    registry.set_alias(1, "champion")

    assert registry.archive(1).status == "archived"
    assert registry.find_alias("champion") is None

    assert registry.set_alias(1, "champion").status == "champion"
    assert registry.version(1).tags.keys() == {"gates_passed", "package_fingerprint"}


@pytest.mark.parametrize(
    "act",
    [
        lambda registry: registry.version(7),
        lambda registry: registry.set_alias(7, "champion"),
        lambda registry: registry.archive(7),
        lambda registry: registry.package_of(7, Path("unused")),
    ],
)
def test_an_unknown_version_is_refused_with_those_that_there_are(
    registry: ModelRegistry, log: Log, act: Callable[[ModelRegistry], object]
) -> None:
    register(registry, log)

    with pytest.raises(RegistryError, match=r"ev-soh-predictor has no version 7; there are: 1$"):
        act(registry)


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_below_one_is_no_version(registry: ModelRegistry, number: int) -> None:
    with pytest.raises(RegistryError, match=f"has no version {number}; there are: none yet"):
        registry.version(number)


def test_an_unknown_alias_cannot_be_set(registry: ModelRegistry, log: Log) -> None:
    register(registry, log)

    with pytest.raises(RegistryError, match="'best' is unknown; expected champion or challenger"):
        registry.set_alias(1, "best")


def test_a_package_comes_from_the_registry_as_it_went_in(
    registry: ModelRegistry, log: Log, package: ModelPackage, tmp_path: Path
) -> None:
    register(registry, log)
    registry.set_alias(1, "champion")

    folder = registry.package_of("champion", tmp_path / "cache")

    assert load_package(folder).fingerprint == package.fingerprint
    assert list((tmp_path / "cache").iterdir()) == [folder]
    assert registry.package_of(1, tmp_path / "cache") == folder


def test_a_cached_package_is_not_fetched_again(
    registry: ModelRegistry, log: Log, tmp_path: Path
) -> None:
    register(registry, log)
    folder = registry.package_of(1, tmp_path / "cache")
    shutil.rmtree(tmp_path / "artifacts")

    assert registry.package_of(1, tmp_path / "cache") == folder


def test_a_broken_cache_is_fetched_again(
    registry: ModelRegistry, log: Log, package: ModelPackage, tmp_path: Path
) -> None:
    register(registry, log)
    folder = registry.package_of(1, tmp_path / "cache")
    (folder / "manifest.json").write_text("{}")

    assert load_package(registry.package_of(1, tmp_path / "cache")).manifest == package.manifest


def test_two_fetches_at_once_both_get_the_package(
    registry: ModelRegistry, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(registry, log)
    rename = Path.rename

    def overtaken(source: Path, target: Path) -> Path:
        shutil.copytree(source, target)
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", overtaken)
    folder = registry.package_of(1, tmp_path / "cache")

    assert load_package(folder)
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_a_cache_that_cannot_be_written_is_named(
    registry: ModelRegistry, log: Log, tmp_path: Path
) -> None:
    register(registry, log)
    (tmp_path / "file").touch()

    with pytest.raises(RegistryError, match="could not fetch the package of version 1 in"):
        registry.package_of(1, tmp_path / "file")


def test_a_package_whose_artifacts_are_gone_is_refused(
    registry: ModelRegistry, log: Log, tmp_path: Path
) -> None:
    register(registry, log)
    shutil.rmtree(tmp_path / "artifacts")

    with pytest.raises(RegistryError, match=r"version 1"):
        registry.package_of(1, tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


def test_another_package_in_its_place_is_refused(
    registry: ModelRegistry, log: Log, tmp_path: Path
) -> None:
    register(registry, log)
    (manifest,) = (tmp_path / "artifacts").rglob("manifest.json")
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))

    with pytest.raises(RegistryError, match="no package with the registered fingerprint"):
        registry.package_of(1, tmp_path / "cache")


def test_a_folder_that_is_no_package_cannot_be_logged(log: Log, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"has no manifest\.json"):
        log(package_folder=tmp_path)


def test_an_artifact_that_is_not_there_is_refused_before_a_run_exists(
    registry: ModelRegistry, log: Log
) -> None:
    with pytest.raises(RegistryError, match=r"artifact absent\.png does not exist"):
        log(artifacts=[Path("absent.png")])

    assert client(registry).get_experiment_by_name("battery-soh") is None


def test_a_run_that_could_not_be_logged_whole_cannot_be_registered(
    registry: ModelRegistry, log: Log
) -> None:
    with pytest.raises(RegistryError, match=r"could not log run .*mae\?"):
        log(metrics={"mae?": 0.1})

    experiment = client(registry).get_experiment_by_name("battery-soh")
    (run,) = client(registry).search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    with pytest.raises(RegistryError, match="cannot be registered: it is failed and has no model"):
        registry.register(run.info.run_id, tags={})


def test_a_run_that_is_not_there_cannot_be_registered(registry: ModelRegistry) -> None:
    with pytest.raises(RegistryError, match=r"could not register run abc in sqlite:.*'?abc'?"):
        registry.register("abc", tags={})


def test_a_version_outlives_its_purged_run(
    registry: ModelRegistry, log: Log, tmp_path: Path
) -> None:
    register(registry, log)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        for table in ("latest_metrics", "metrics", "params", "tags", "runs"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - fixed names

    assert registry.version(1).metrics == {}


def test_a_deleted_experiment_is_named(registry: ModelRegistry, log: Log) -> None:
    log()
    experiment = client(registry).get_experiment_by_name("battery-soh")
    client(registry).delete_experiment(experiment.experiment_id)

    with pytest.raises(RegistryError, match="experiment 'battery-soh' was deleted; restore it"):
        log()


def test_an_experiment_that_another_process_makes_first_is_used(
    registry: ModelRegistry, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = log()
    asked = registry._client.get_experiment_by_name  # noqa: SLF001 - the race stands here
    answers = iter([None])
    monkeypatch.setattr(
        registry._client,  # noqa: SLF001 - as above
        "get_experiment_by_name",
        lambda name: next(answers, asked(name)),
    )

    second = log()

    runs = [client(registry).get_run(run_id).info.experiment_id for run_id in (first, second)]
    assert runs[0] == runs[1]


def test_a_store_that_vanishes_gives_an_error_of_its_own(
    registry: ModelRegistry, log: Log, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(registry, log)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("DROP TABLE model_versions")

    for act in (registry.versions, lambda: registry.version(1)):
        with pytest.raises(RegistryError, match="model_versions"):
            act()
    assert caplog.records == []


def test_no_global_tracking_uri_is_set(registry: ModelRegistry, log: Log) -> None:
    import mlflow  # noqa: PLC0415 - after the registry has imported it in its way

    register(registry, log)

    assert not mlflow.is_tracking_uri_set()
