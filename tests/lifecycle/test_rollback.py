"""Going back: to the last good version, whatever dies in between, and never to a bad one."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batteryops.errors import GateError, PackageError, RecordsError, RegistryError, SettingsError
from batteryops.lifecycle.champion_moves import moves
from batteryops.lifecycle.loading import open_registry
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.rollback import ROLLBACK_CARRIED_OUT, rollback
from batteryops.records.ledger import MODEL_ROLLED_BACK, Ledger
from batteryops.registry import mlflow_tracking
from batteryops.registry.mlflow_tracking import ModelRegistry
from batteryops.registry.store import open_client
from batteryops.registry.versions import ARCHIVED_TAG, ROLLED_BACK_TAG
from batteryops.serving.live_model import LiveModel
from batteryops.settings import Settings, load_settings

CHANGES = ("set_", "delete_", "create_", "append")


@pytest.fixture(scope="session")
def four_versions(
    tmp_path_factory: pytest.TempPathFactory, trained_home: Path, quick_config: Path
) -> Path:
    """A home where versions 1, 2 and 3 were champion in turn, and 4 challenges."""
    home = tmp_path_factory.mktemp("rollback") / "home"
    shutil.copytree(trained_home, home)
    settings = load_settings(quick_config, home=home)
    registry = open_registry(settings)
    run = registry.version(1)
    for _ in range(3):
        registry.register(run.run_id, tags=run.tags)
    for version in (1, 2, 3):
        promote(version, settings)
    promote(4, settings, to="challenger")
    return home


@pytest.fixture
def fresh(tmp_path: Path, four_versions: Path, quick_config: Path) -> Callable[[str], Settings]:
    """Settings of a copy of that home."""

    def copy(name: str) -> Settings:
        shutil.copytree(four_versions, tmp_path / name)
        return load_settings(quick_config, home=tmp_path / name)

    return copy


@pytest.fixture
def settings(fresh: Callable[[str], Settings]) -> Settings:
    return fresh("home")


class KilledError(BaseException):
    """The end of the process: nobody catches it."""


@contextmanager
def dies_at(call: int, how: type[BaseException]) -> Iterator[list[str]]:
    """Let so many changes of registry and ledger happen, then fail at every one that follows."""
    made: list[str] = []

    def count(name: str) -> None:
        if len(made) >= call:
            raise how(f"gone at {name}")
        made.append(name)

    class Proxy:
        def __init__(self, client: Any) -> None:  # noqa: ANN401 - MLflow's
            self._client = client

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any of the client's methods
            found = getattr(self._client, name)
            if not name.startswith(CHANGES):
                return found

            def change(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - as it is called
                count(name)
                return found(*given, **named)

            return change

    append = Ledger.append

    def appended(self: Ledger, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - as it is called
        try:
            count("append")
        except RuntimeError as error:
            raise RecordsError(str(error)) from error
        return append(self, *given, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mlflow_tracking, "open_client", lambda *given: Proxy(open_client(*given)))
        patched.setattr(Ledger, "append", appended)
        yield made


def test_the_champion_before_is_back_and_the_bad_version_is_archived(settings: Settings) -> None:
    done = rollback(settings, reason="MAE 0.2 Ah", actor="operator")
    registry = open_registry(settings)
    assert (done.version, done.replaced, done.resumed, done.verified) == (2, 3, False, True)
    assert (done.passed_over, done.challenger, done.servers) == ((), 4, ())
    assert registry.version_at("champion").version == 2
    assert registry.find_alias("challenger") is None  # its trial was against the bad one
    bad = registry.version(3)
    assert bad.status == "archived"
    assert bad.tags[ROLLED_BACK_TAG] == f"ledger line {done.entry.sequence}"
    assert ARCHIVED_TAG not in registry.version(2).tags
    with Ledger(settings.ledger_url) as ledger:
        decided, ended = ledger.entries(limit=2)
        assert ledger.verify().intact
    assert (decided.event, ended.event) == (MODEL_ROLLED_BACK, ROLLBACK_CARRIED_OUT)
    assert (decided.actor, decided.details["reason"]) == ("operator", "MAE 0.2 Ah")
    assert done.to_json()["ledger"] == decided.sequence


def test_it_never_goes_back_to_a_version_that_was_gone_back_from(settings: Settings) -> None:
    assert rollback(settings, reason="bad").version == 2
    promote(4, settings)
    assert rollback(settings, reason="bad too").version == 2
    assert rollback(settings, reason="and this").version == 1
    with pytest.raises(RegistryError, match="no version to go back to from version 1"):
        rollback(settings, reason="nothing is left")
    assert rollback(settings, reason="it was not that one", to=3).version == 3


def test_a_named_version_that_is_gone_already_is_not_gone_back_from_twice(
    settings: Settings,
) -> None:
    first = rollback(settings, reason="bad", bad=3)
    again = rollback(settings, reason="bad", bad=3)
    assert (again.version, again.entry, again.resumed) == (2, first.entry, True)
    assert open_registry(settings).version_at("champion").version == 2
    with pytest.raises(RegistryError, match="version 4 is not @champion, version 2 is"):
        rollback(settings, reason="bad", bad=4)


def test_without_an_earlier_champion_nothing_moves(
    tmp_path: Path, trained_home: Path, quick_config: Path
) -> None:
    shutil.copytree(trained_home, tmp_path / "home")
    settings = load_settings(quick_config, home=tmp_path / "home")
    with pytest.raises(RegistryError, match=r"no version of .* is @champion"):
        rollback(settings, reason="bad")
    promote(1, settings)
    with pytest.raises(RegistryError, match="no earlier champion"):
        rollback(settings, reason="bad")
    assert open_registry(settings).version_at("champion").version == 1


def test_a_damaged_package_is_passed_over_and_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_of = ModelRegistry.package_of

    def damaged(self: ModelRegistry, version: int | str, cache: Path) -> Path:
        if version == 2:
            raise PackageError("model.onnx has another SHA-256")
        return package_of(self, version, cache)

    monkeypatch.setattr(ModelRegistry, "package_of", damaged)
    done = rollback(settings, reason="bad")
    assert done.version == 1
    assert done.passed_over == ((2, "model.onnx has another SHA-256"),)
    assert done.entry.details["passed_over"][0]["version"] == 2
    with pytest.raises(PackageError, match="another SHA-256"):
        rollback(settings, reason="bad", to=2)


def test_a_package_whose_fingerprint_is_not_that_of_the_ledger_is_not_trusted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ModelRegistry,
        "_find",
        _with_fingerprint(ModelRegistry._find, 2, "0" * 64),  # noqa: SLF001 - a store that lies
    )
    done = rollback(settings, reason="bad")
    assert done.version == 1
    assert "has fingerprint 000" in done.passed_over[0][1]


def _with_fingerprint(find: Any, version: int, fingerprint: str) -> Any:  # noqa: ANN401 - a method
    def found(self: ModelRegistry, number: int, *aliases: Any) -> Any:  # noqa: ANN401 - as it is
        given = find(self, number, *aliases)
        if number != version:
            return given
        return replace(given, tags={**given.tags, "package_fingerprint": fingerprint})

    return found


def test_a_model_that_does_not_answer_as_recorded_is_passed_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def self_test(self: Any) -> str | None:  # noqa: ANN401 - a live model
        asked.append(self.version)
        return "the model answers nan" if self.version == "2" else None

    monkeypatch.setattr(LiveModel, "self_test", self_test)
    assert rollback(settings, reason="bad").version == 1
    assert asked == ["2", "1"]


def test_what_makes_no_sense_is_refused(settings: Settings) -> None:
    with pytest.raises(RecordsError, match="says why"):
        rollback(settings, reason=" ")
    with pytest.raises(RegistryError, match="version 3 is @champion already"):
        rollback(settings, reason="bad", to=3)
    with pytest.raises(SettingsError, match="no server's address"):
        rollback(settings, reason="bad", servers=["localhost"])
    with pytest.raises(RegistryError, match="no version 9"):
        rollback(settings, reason="bad", to=9)
    registry = open_registry(settings)
    failed = registry.register(registry.version(1).run_id, tags={"gates_passed": "false"}).version
    with pytest.raises(GateError, match="never champion"):
        rollback(settings, reason="bad", to=failed)
    assert registry.version_at("champion").version == 3


@pytest.mark.parametrize("how", [KilledError, RuntimeError])
def test_whatever_dies_in_a_rollback_running_it_again_carries_it_out_once(
    fresh: Callable[[str], Settings], how: type[BaseException]
) -> None:
    for call in range(20):
        settings = fresh(f"home{call}")
        with (
            dies_at(call, how) as made,
            suppress(KilledError, RegistryError, RecordsError),
        ):
            rollback(settings, reason="bad")
            break
        holder = open_registry(settings).version_at("champion").version
        assert holder in {2, 3}, made
        done = rollback(settings, reason="bad")
        registry = open_registry(settings)
        assert (done.version, done.replaced) == (2, 3), made
        assert done.resumed == (holder == 2), made
        assert registry.version_at("champion").version == 2
        assert registry.version(3).status == "archived"
        assert ROLLED_BACK_TAG in registry.version(3).tags
        assert registry.find_alias("challenger") is None
        with Ledger(settings.ledger_url) as ledger:
            last = ledger.entries(limit=1)[0]
            assert last.event == ROLLBACK_CARRIED_OUT
            assert last.details["rollback"] == done.entry.sequence
    else:
        pytest.fail("it never got through")
    assert len(made) >= 6, made  # decision, alias, tag, alias of the trial, tags, end


@pytest.mark.parametrize("how", [KilledError, RuntimeError])
def test_whatever_dies_in_a_promotion_running_it_again_carries_it_out(
    fresh: Callable[[str], Settings], how: type[BaseException]
) -> None:
    for call in range(20):
        settings = fresh(f"home{call}")
        with (
            dies_at(call, how) as made,
            suppress(KilledError, RegistryError, RecordsError),
        ):
            promote(4, settings)
            break
        registry = open_registry(settings)
        holder = registry.version_at("champion").version
        assert holder in {3, 4}, made
        if holder == 4:  # decided before it was moved
            with Ledger(settings.ledger_url) as ledger:
                assert moves(ledger, registry.model_name)[-1].to == 4
        promote(4, settings)
        assert registry.version_at("champion").version == 4
        assert registry.version(3).status == "archived", made
        assert registry.find_alias("challenger") is None, made
    else:
        pytest.fail("it never got through")
    assert len(made) >= 4, made  # decision, alias, alias of the trial, tag


def test_a_registry_that_does_not_answer_moves_nothing_and_is_not_a_damaged_package(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_of, find = ModelRegistry.package_of, ModelRegistry.find_alias
    gone = []

    def away(*_: object) -> None:
        gone.append(True)
        raise RegistryError("the registry does not answer")

    monkeypatch.setattr(ModelRegistry, "package_of", away)
    monkeypatch.setattr(
        ModelRegistry, "find_alias", lambda self, alias: away() if gone else find(self, alias)
    )
    with pytest.raises(RegistryError, match="does not answer"):
        rollback(settings, reason="bad")
    monkeypatch.setattr(ModelRegistry, "find_alias", find)
    monkeypatch.setattr(ModelRegistry, "package_of", package_of)
    assert open_registry(settings).version_at("champion").version == 3
    with Ledger(settings.ledger_url) as ledger:
        assert not ledger.entries(MODEL_ROLLED_BACK)
