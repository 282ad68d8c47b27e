"""The registry on a real MLflow with SQLite: runs, versions, aliases, packages."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
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


def test_versions_are_found_by_a_tag_oldest_first(registry: ModelRegistry, log: Log) -> None:
    run_id = log()
    for made_by in ("a", "b", "a"):
        registry.register(run_id, tags={"made_by": made_by})

    assert [version.version for version in registry.tagged("made_by", "a")] == [1, 3]
    assert registry.tagged("made_by", "c") == []
    assert registry.tagged("another", "a") == []


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
    registry.set_alias(1, "challenger")

    assert registry.archive(1).status == "archived"
    assert registry.find_alias("challenger") is None

    assert registry.set_alias(1, "champion").status == "champion"
    assert registry.version(1).tags.keys() == {"gates_passed", "package_fingerprint"}


def test_the_champion_cannot_be_archived(registry: ModelRegistry, log: Log) -> None:
    register(registry, log)
    registry.set_alias(1, "champion")

    with pytest.raises(RegistryError, match=r"version 1 is @champion.*promote another version"):
        registry.archive(1)

    assert registry.version_at("champion").status == "champion"


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


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "manifest.json").write_text("{}"),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "model.ubj").write_bytes(b"half"),
        lambda folder: (folder / "model.onnx").unlink(),
        lambda folder: folder.rename(folder.parents[1] / "away").joinpath("x") and folder.touch(),
    ],
    ids=["manifest emptied", "manifest gone", "file cut", "file gone", "no folder"],
)
def test_a_damaged_or_half_written_cache_is_fetched_again(
    registry: ModelRegistry,
    log: Log,
    package: ModelPackage,
    tmp_path: Path,
    damage: Callable[[Path], object],
) -> None:
    register(registry, log)
    folder = registry.package_of(1, tmp_path / "cache")
    damage(folder)

    assert load_package(registry.package_of(1, tmp_path / "cache")).manifest == package.manifest
    assert list((tmp_path / "cache").iterdir()) == [folder]


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
    registry: ModelRegistry, log: Log, package: ModelPackage, tmp_path: Path
) -> None:
    register(registry, log)
    (manifest,) = (tmp_path / "artifacts").rglob("manifest.json")
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))

    with pytest.raises(
        RegistryError,
        match=rf"of version 1 \(run .*\) do not hold the package that was registered: .* has "
        rf"fingerprint [0-9a-f]{{64}}, registered is {package.fingerprint}",
    ):
        registry.package_of(1, tmp_path / "cache")


def test_a_package_that_is_damaged_in_the_registry_too_is_refused_with_both_hashes(
    registry: ModelRegistry, log: Log, package: ModelPackage, tmp_path: Path
) -> None:
    register(registry, log)
    damaged = registry.package_of(1, tmp_path / "cache") / "model.ubj"
    damaged.write_bytes(b"half")
    (stored,) = (tmp_path / "artifacts").rglob("model.ubj")
    stored.write_bytes(b"other")

    given, expected = sha256(b"other").hexdigest(), package.manifest.files["model.ubj"]
    with pytest.raises(
        RegistryError, match=rf"version 1 .*model\.ubj has SHA-256 {given}, expected {expected}"
    ):
        registry.package_of(1, tmp_path / "cache")

    assert damaged.read_bytes() == b"half"
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_package_that_cannot_be_moved_into_the_cache_is_refused(
    registry: ModelRegistry, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(registry, log)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RegistryError, match=r"cannot be kept at .*: Permission denied; name"):
        registry.package_of(1, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_version_that_was_registered_by_other_means_has_no_package(
    registry: ModelRegistry, log: Log, tmp_path: Path
) -> None:
    run_id = log()
    client(registry).create_registered_model("ev-soh-predictor")
    client(registry).create_model_version("ev-soh-predictor", "somewhere", run_id)

    with pytest.raises(RegistryError, match=r"version 1 .* has no tag package_fingerprint"):
        registry.package_of(1, tmp_path / "cache")


def test_artifacts_can_be_kept_where_the_first_run_will_keep_them(
    registry: ModelRegistry, log: Log, tmp_path: Path
) -> None:
    place = (tmp_path / "artifacts").as_uri()

    assert registry.check_artifacts() == place
    assert list((tmp_path / "artifacts").iterdir()) == []
    log()
    assert registry.check_artifacts() == place


def test_an_experiments_own_place_is_looked_at_and_not_a_later_setting(
    open_registry: Callable[..., ModelRegistry], log: Log, tmp_path: Path
) -> None:
    log()
    later = open_registry(artifact_root=str(tmp_path / "later"))

    assert later.check_artifacts() == (tmp_path / "artifacts").as_uri()
    shutil.rmtree(tmp_path / "artifacts")
    (tmp_path / "artifacts").touch()
    with pytest.raises(RegistryError, match=r"artifacts cannot be kept at .*File exists"):
        later.check_artifacts()


@pytest.mark.parametrize(
    "place",
    [
        "ftp://user:hidden@127.0.0.1:1/artifacts",  # nobody listens there
        "mlflow-artifacts:/",  # of a server, where there is a database
        "http://user:hidden@[bad/artifacts",
        "nowhere://user:hidden@host/artifacts",
    ],
)
def test_a_place_out_of_reach_is_named_without_its_password(
    open_registry: Callable[..., ModelRegistry], place: str
) -> None:
    registry = open_registry(artifact_root=place)

    with pytest.raises(RegistryError, match="artifacts cannot be kept at") as refused:
        registry.check_artifacts()

    assert "hidden" not in str(refused.value)


def test_a_place_that_answers_over_http_is_listed(
    open_registry: Callable[..., ModelRegistry],
) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"files": []}')

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}/api/2.0/mlflow-artifacts/artifacts"
        assert open_registry(artifact_root=place).check_artifacts() == place
        server.shutdown()


def test_a_place_that_is_left_to_the_server_is_not_guessed(
    open_registry: Callable[..., ModelRegistry],
) -> None:
    assert "left to the server" in open_registry(artifact_root=None).check_artifacts()


def test_names_that_mlflow_refuses_are_an_error_of_its_own(
    open_registry: Callable[..., ModelRegistry], log: Log, package: ModelPackage
) -> None:
    unnamed = open_registry(model_name="", experiment="")
    run_id = log()

    for act in (
        lambda: unnamed.register(run_id, tags={}),
        lambda: unnamed.find_alias("champion"),
        lambda: unnamed.log_run(
            run_name="r", package_folder=package.folder, parameters={}, metrics={}, tags={}
        ),
    ):
        with pytest.raises(RegistryError, match="could not"):
            act()


def test_what_a_storage_library_raises_is_an_error_of_its_own(
    open_registry: Callable[..., ModelRegistry], package: ModelPackage
) -> None:
    registry = open_registry(artifact_root="sftp://user:hidden@127.0.0.1:1/x")

    with pytest.raises(RegistryError, match="could not log run 'r' in sqlite") as refused:
        registry.log_run(
            run_name="r", package_folder=package.folder, parameters={}, metrics={}, tags={}
        )

    assert "hidden" not in str(refused.value)


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
