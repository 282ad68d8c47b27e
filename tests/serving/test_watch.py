"""The watcher of the registry: from aliases to what is to be served."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from batteryops.errors import PackageError, RegistryError
from batteryops.models.package import ModelPackage
from batteryops.registry.mlflow_tracking import ModelRegistry
from batteryops.registry.versions import ModelVersion
from batteryops.serving.watch import RegistryWatcher
from batteryops.settings import Settings


@dataclass
class Registry:
    """What the watcher asks of a registry, held in memory."""

    package: ModelPackage
    aliases: dict[str, int] = field(default_factory=lambda: {"champion": 1})
    folders: dict[int, Path] = field(default_factory=dict)
    away: str | None = None
    fetched: list[int] = field(default_factory=list)
    opened: int = 0

    def open(self) -> ModelRegistry:
        self.opened += 1
        self._answer()
        return cast("ModelRegistry", self)

    def find_alias(self, alias: str) -> ModelVersion | None:
        self._answer()
        number = self.aliases.get(alias)
        return None if number is None else self._version(number)

    def version_at(self, alias: str) -> ModelVersion:
        found = self.find_alias(alias)
        if found is None:
            raise RegistryError(f"no version stands at @{alias}")
        return found

    def package_of(self, version: int, cache_folder: Path) -> Path:
        del cache_folder
        self._answer()
        self.fetched.append(version)
        return self.folders.get(version, self.package.folder)

    def _answer(self) -> None:
        if self.away is not None:
            raise RegistryError(self.away)

    def _version(self, number: int) -> ModelVersion:
        fingerprint = {"package_fingerprint": self.package.fingerprint}
        now = datetime.now(UTC)
        return ModelVersion(number, f"run {number}", now, (), "candidate", fingerprint, {})


@pytest.fixture
def registry(package: ModelPackage) -> Registry:
    return Registry(package)


@pytest.fixture
def watcher(registry: Registry, settings: Settings, tmp_path: Path) -> RegistryWatcher:
    return RegistryWatcher(registry.open, settings.model_copy(update={"home": tmp_path}))


def test_the_champion_is_to_be_served_alone(
    watcher: RegistryWatcher, package: ModelPackage
) -> None:
    found = watcher.look(None)
    assert (found.champion.version, found.champion.role) == ("1", "champion")
    assert found.champion.fingerprint == package.fingerprint
    assert (found.challenger, found.routing.mode, found.generation) == (None, "off", 1)
    assert found.registry.followed
    assert found.registry.reachable


def test_while_nothing_changes_it_says_so_and_fetches_nothing(
    watcher: RegistryWatcher, registry: Registry
) -> None:
    first = watcher.look(None)
    for _ in range(3):
        assert watcher.look(first) is first
    assert registry.fetched == [1]
    assert registry.opened == 1


def test_a_challenger_is_served_beside_by_the_rule_of_the_settings(
    watcher: RegistryWatcher, registry: Registry, settings: Settings
) -> None:
    first = watcher.look(None)
    registry.aliases["challenger"] = 2
    found = watcher.look(first)
    assert found.challenger is not None
    assert (found.challenger.version, found.challenger.role) == ("2", "challenger")
    assert (found.routing.mode, found.routing.share) == (
        settings.serving.routing.mode,
        settings.serving.routing.share,
    )
    assert found.routing.salt == "1 against 2"
    assert found.generation == 2


def test_a_challenger_becomes_champion_and_is_rolled_back(
    watcher: RegistryWatcher, registry: Registry
) -> None:
    registry.aliases["challenger"] = 2
    first = watcher.look(None)
    registry.aliases = {"champion": 2}
    second = watcher.look(first)
    assert (second.champion.version, second.champion.role) == ("2", "champion")
    assert (second.challenger, second.generation) == (None, 2)
    registry.aliases = {"champion": 1}
    third = watcher.look(second)
    assert (third.champion.version, third.generation) == ("1", 3)
    assert registry.fetched == [1, 2, 2]  # once for each role


def test_a_version_at_both_aliases_has_no_challenger(
    watcher: RegistryWatcher, registry: Registry
) -> None:
    registry.aliases["challenger"] = 1
    assert watcher.look(None).challenger is None


def test_a_registry_that_does_not_answer_leaves_what_is_served_and_is_noted_once(
    watcher: RegistryWatcher, registry: Registry
) -> None:
    first = watcher.look(None)
    registry.away = "connection refused"
    second = watcher.look(first)
    assert second.same_service(first)
    assert (second.generation, second.registry.reachable) == (1, False)
    assert second.registry.problem == "connection refused"
    assert watcher.look(second) is second
    registry.away = "connection timed out"
    third = watcher.look(second)
    assert third.registry.problem == "connection timed out"
    assert third.registry.since == second.registry.since
    registry.away = None
    fourth = watcher.look(third)
    assert fourth.same_service(first)
    assert fourth.registry.reachable
    assert fourth.registry.problem is None
    assert registry.opened > 1  # connected anew


def test_at_the_very_beginning_a_registry_must_answer(
    watcher: RegistryWatcher, registry: Registry
) -> None:
    registry.away = "connection refused"
    with pytest.raises(RegistryError, match="connection refused"):
        watcher.look(None)


def _gone(folder: Path) -> None:
    shutil.rmtree(folder)


def _shortened(folder: Path) -> None:
    for file in folder.glob("*.onnx"):
        file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [_gone, _shortened])
def test_a_package_that_is_broken_is_not_to_be_served(
    watcher: RegistryWatcher,
    registry: Registry,
    package: ModelPackage,
    tmp_path: Path,
    harm: Callable[[Path], None],
) -> None:
    first = watcher.look(None)
    broken = tmp_path / "broken"
    shutil.copytree(package.folder, broken)
    harm(broken)
    registry.folders[2] = broken
    registry.aliases["champion"] = 2
    second = watcher.look(first)
    assert second.same_service(first)
    assert second.registry.problem is not None
    assert "broken" in second.registry.problem
    del registry.folders[2]
    assert watcher.look(second).champion.version == "2"


def test_a_broken_package_at_the_very_beginning_is_refused(
    watcher: RegistryWatcher, registry: Registry, tmp_path: Path
) -> None:
    registry.folders[1] = tmp_path / "nowhere"
    with pytest.raises(PackageError, match="nowhere"):
        watcher.look(None)
