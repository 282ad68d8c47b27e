"""Watches the registry: which versions are to be served, as a deployment."""

from collections.abc import Callable
from datetime import UTC, datetime

from batteryops.errors import PackageError, RegistryError
from batteryops.models.package import load_package
from batteryops.registry.mlflow_tracking import ModelRegistry
from batteryops.registry.versions import CHALLENGER, CHAMPION, ModelVersion
from batteryops.serving.deployment import Deployment, RegistryState, RoutingRule, Slot
from batteryops.settings import Settings


class RegistryWatcher:
    """Asks the registry, and remembers nothing but packages it has seen.

    Args:
        open_registry: connects; called again after the registry did not answer.
        settings: where packages are cached, and how traffic is divided.
    """

    def __init__(self, open_registry: Callable[[], ModelRegistry], settings: Settings) -> None:
        self._open = open_registry
        self._settings = settings
        self._registry: ModelRegistry | None = None
        self._slots: dict[tuple[int, str, str | None], Slot] = {}

    def look(self, before: Deployment | None) -> Deployment:
        """What is to be served now.

        Args:
            before: what was, or None at the very beginning.

        Returns:
            `before`, with the registry's state, when the registry does not answer or names a
            version that cannot be had; `before` itself when nothing is new.

        Raises:
            RegistryError, PackageError: the same at the very beginning.
        """
        try:
            found = self._look(1 if before is None else before.generation + 1)
        except (RegistryError, PackageError) as error:
            self._registry = None
            if before is None:
                raise
            state = before.registry
            if not state.reachable and state.problem == str(error):
                return before
            since = datetime.now(UTC) if state.reachable else state.since
            return before.model_copy(
                update={
                    "registry": RegistryState(
                        followed=True, reachable=False, problem=str(error), since=since
                    )
                }
            )
        if before is None or not found.same_service(before):
            return found
        if before.registry.reachable and before.registry.followed:
            return before
        return before.model_copy(update={"registry": found.registry})

    def _look(self, generation: int) -> Deployment:
        if self._registry is None:
            self._registry = self._open()
        champion = self._registry.version_at(CHAMPION)
        challenger = self._registry.find_alias(CHALLENGER)
        if challenger is not None and challenger.version == champion.version:
            challenger = None
        rule = self._settings.serving.routing
        named = "" if challenger is None else f"{champion.version} against {challenger.version}"
        return Deployment(
            generation=generation,
            checked_at=datetime.now(UTC),
            champion=self._slot(champion, CHAMPION),
            challenger=None if challenger is None else self._slot(challenger, CHALLENGER),
            routing=RoutingRule(
                mode="off" if challenger is None else rule.mode, share=rule.share, salt=named
            ),
            registry=RegistryState(
                followed=True, reachable=True, problem=None, since=datetime.now(UTC)
            ),
        )

    def _slot(self, version: ModelVersion, role: str) -> Slot:
        """The version's package, fetched when it was not seen before."""
        key = version.version, role, version.package_fingerprint
        if key not in self._slots:
            assert self._registry is not None  # noqa: S101 - it named the version
            folder = self._registry.package_of(version.version, self._settings.packages)
            package = load_package(folder.resolve())
            self._slots[key] = Slot(
                version=str(version.version),
                role=role,
                folder=package.folder,
                fingerprint=package.fingerprint,
            )
        return self._slots[key]
