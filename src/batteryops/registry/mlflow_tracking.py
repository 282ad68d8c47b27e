"""Runs, versions and aliases of the model, on MLflow."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from batteryops.errors import BatteryOpsError, RegistryError
from batteryops.files import first_line
from batteryops.models.manifest import read_manifest
from batteryops.registry.artifacts import check_place
from batteryops.registry.package_cache import folder_of, keep
from batteryops.registry.store import open_client
from batteryops.registry.versions import (
    ALIASES,
    ARCHIVED_TAG,
    CHALLENGER,
    CHAMPION,
    FINGERPRINT_TAG,
    MetricsOfRun,
    ModelVersion,
    Status,
)
from batteryops.urls import hidden, masked

__all__ = ["ALIASES", "CHALLENGER", "CHAMPION", "ModelRegistry", "ModelVersion", "Status"]

PACKAGE: Final = "package"
"""Where in a run's artifacts its model package lies."""

_PAGE: Final = 200
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class ModelRegistry:
    """The registered model in one MLflow store; opened when it is first asked something.

    Nothing of MLflow's global state is set: each registry has a client of its own.

    Args:
        tracking_uri: `sqlite:///FILE`, another database's URL, or an MLflow server's address.
        artifact_root: folder or URI where a new experiment keeps its artifacts; None leaves it to
            the server. An experiment keeps the place it was made with.
        experiment: its name.
        model_name: the registered model.
    """

    def __init__(
        self,
        *,
        tracking_uri: str,
        artifact_root: str | Path | None,
        experiment: str,
        model_name: str,
    ) -> None:
        self.tracking_uri = tracking_uri
        self.artifact_root = _location(artifact_root)
        self.experiment = experiment
        self.model_name = model_name

    def log_run(  # noqa: PLR0913 - one argument per kind of thing a run holds
        self,
        *,
        run_name: str,
        package_folder: Path,
        parameters: Mapping[str, object],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Sequence[Path] = (),
    ) -> str:
        """Log a finished training: parameters, metrics, tags, its package and further files.

        A run that cannot be logged whole is marked as failed, and cannot be registered.

        Args:
            run_name: for people.
            package_folder: what `models.package_writing.write_package` wrote.
            parameters: of the fit.
            metrics: by names that MLflow allows (letters, digits, `_ - . : /` and spaces).
            tags: of the run.
            artifacts: files and folders to keep beside the package.

        Returns:
            The run's id.

        Raises:
            PackageError: when the folder is no package.
            RegistryError: when an artifact does not exist or the store refuses.
        """
        fingerprint = read_manifest(package_folder).fingerprint
        for path in artifacts:
            if not path.exists():
                raise RegistryError(f"artifact {path} does not exist; name a file or a folder")
        with self._asked(f"log run {run_name!r}"):
            from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 - heavy, see store

            now = int(datetime.now(UTC).timestamp() * 1000)
            run_id: str = self._client.create_run(
                self._experiment_id(), start_time=now, run_name=run_name
            ).info.run_id
            try:
                self._client.log_batch(
                    run_id,
                    metrics=[Metric(name, float(value), now, 0) for name, value in metrics.items()],
                    params=[Param(name, str(value)) for name, value in parameters.items()],
                    tags=[
                        RunTag(name, str(value))
                        for name, value in {**tags, FINGERPRINT_TAG: fingerprint}.items()
                    ],
                )
                self._client.log_artifacts(run_id, str(package_folder), PACKAGE)
                for path in artifacts:
                    self._client.log_artifact(run_id, str(path))
            except BaseException:
                self._client.set_terminated(run_id, "FAILED")
                raise
            self._client.set_terminated(run_id, "FINISHED")
        return run_id

    def register(self, run_id: str, *, tags: Mapping[str, str]) -> ModelVersion:
        """Make a version of the package that a run logged; it starts as a candidate.

        Args:
            run_id: what `log_run` returned.
            tags: of the version, `gates_passed` (`true` or `false`) among them.

        Raises:
            RegistryError: when there is no such run, or it was not logged whole.
        """
        with self._asked(f"register run {run_id}"):
            from mlflow.exceptions import MlflowException  # noqa: PLC0415 - heavy, see store

            run = self._client.get_run(run_id)
            fingerprint = run.data.tags.get(FINGERPRINT_TAG)
            if run.info.status != "FINISHED" or fingerprint is None:
                raise RegistryError(
                    f"run {run_id} cannot be registered: it is {run.info.status.lower()} and "
                    f"{'has' if fingerprint else 'has no'} model package; train again"
                )
            try:
                self._client.create_registered_model(self.model_name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            created = self._client.create_model_version(
                self.model_name,
                f"{run.info.artifact_uri}/{PACKAGE}",
                run_id,
                tags={**tags, FINGERPRINT_TAG: fingerprint},
            )
            return self._read(created, self._aliases())

    def versions(self) -> list[ModelVersion]:
        """Every version, oldest first; none when nothing was registered yet.

        Raises:
            RegistryError: when the store does not answer.
        """
        return self._search(f"name = '{self.model_name}'")

    def tagged(self, name: str, value: str) -> list[ModelVersion]:
        """The versions with that tag, oldest first.

        Args:
            name: of the tag, letters, digits and underscores.
            value: of the tag, without quotes.

        Raises:
            RegistryError: when the store does not answer.
        """
        return self._search(f"name = '{self.model_name}' and tags.{name} = '{value}'")

    def _search(self, expression: str) -> list[ModelVersion]:
        with self._asked("list the versions"):
            found: list[Any] = []
            token = None
            while True:
                page = self._client.search_model_versions(
                    expression, max_results=_PAGE, page_token=token
                )
                found += page
                token = page.token
                if not token:
                    break
            aliases = self._aliases()
            read = [self._read(version, aliases) for version in found]
        return sorted(read, key=lambda version: version.version)

    def version(self, number: int) -> ModelVersion:
        """The version of that number.

        Raises:
            RegistryError: when there is none; the message names those that there are.
        """
        from_store = self._find(number)
        if from_store is None:
            there_are = ", ".join(str(version.version) for version in self.versions()) or "none yet"
            raise RegistryError(
                f"{self.model_name} has no version {number}; there are: {there_are}"
            )
        return from_store

    def find_alias(self, alias: str) -> ModelVersion | None:
        """The version that holds an alias, with or without `@`; None when none does."""
        with self._asked(f"look up @{alias.lstrip('@')}"):
            aliases = self._aliases()
            number = aliases.get(alias.lstrip("@"))
        return None if number is None else self._find(number, aliases)

    def version_at(self, alias: str) -> ModelVersion:
        """The version that holds an alias, with or without `@`.

        Raises:
            RegistryError: when none does.
        """
        found = self.find_alias(alias)
        if found is None:
            raise RegistryError(
                f"no version of {self.model_name} is @{alias.lstrip('@')}; "
                "promote one: `batteryops versions` lists them, `batteryops promote` sets the alias"
            )
        return found

    def set_alias(self, version: int, alias: str) -> ModelVersion:
        """Give an alias to a version, away from whichever held it; archived ones come back.

        A challenger that becomes champion no longer challenges.

        Raises:
            RegistryError: when there is no such version, the alias is another word, or the
                champion is to challenge itself.
        """
        alias = alias.lstrip("@")
        if alias not in ALIASES:
            raise RegistryError(f"alias {alias!r} is unknown; expected {' or '.join(ALIASES)}")
        before = self.version(version)
        if alias == CHALLENGER and CHAMPION in before.aliases:
            raise RegistryError(
                f"version {version} is @champion and cannot challenge itself; name another version"
            )
        with self._asked(f"set @{alias} on version {version}"):
            number = str(version)
            self._client.set_registered_model_alias(self.model_name, alias, number)
            if alias == CHAMPION and CHALLENGER in before.aliases:
                self._client.delete_registered_model_alias(self.model_name, CHALLENGER)
            if ARCHIVED_TAG in before.tags:
                self._client.delete_model_version_tag(self.model_name, number, ARCHIVED_TAG)
        return self.version(version)

    def drop_alias(self, alias: str) -> None:
        """Take an alias away from whichever version holds it; the champion's only moves.

        Raises:
            RegistryError: when it is that of the champion, or another word.
        """
        alias = alias.lstrip("@")
        if alias not in ALIASES or alias == CHAMPION:
            raise RegistryError(f"alias {alias!r} cannot be taken away; expected {CHALLENGER}")
        with self._asked(f"take @{alias} away"):
            if alias in self._aliases():
                self._client.delete_registered_model_alias(self.model_name, alias)

    def archive(self, version: int, *, tags: Mapping[str, str] | None = None) -> ModelVersion:
        """Retire a version: it keeps its package and no longer challenges.

        Args:
            version: its number.
            tags: that it has from then on, saying why.

        Raises:
            RegistryError: when there is no such version, or it is the champion.
        """
        before = self.version(version)
        if CHAMPION in before.aliases:
            raise RegistryError(
                f"version {version} is @champion and cannot be archived, as nothing would answer; "
                "promote another version first, which archives this one"
            )
        with self._asked(f"archive version {version}"):
            for alias in before.aliases:
                self._client.delete_registered_model_alias(self.model_name, alias)
            now = datetime.now(UTC).isoformat()
            for name, value in {**(tags or {}), ARCHIVED_TAG: now}.items():
                self._client.set_model_version_tag(self.model_name, str(version), name, value)
        return self.version(version)

    def package_of(self, version: int | str, cache_folder: Path) -> Path:
        """The model package of a version, fetched into a folder of its own once.

        A copy in the cache that was damaged or half written is replaced by a fresh one.

        Args:
            version: a number or an alias.
            cache_folder: made when it does not exist; packages that arrive are moved into it whole.

        Raises:
            RegistryError: when there is no such version, or its package is not where the registry
                says, is damaged there, or is another one.
        """
        found = self.version_at(version) if isinstance(version, str) else self.version(version)
        named = f"version {found.version}"
        expected = found.package_fingerprint
        if expected is None:
            raise RegistryError(
                f"{named} of {self.model_name} has no tag {FINGERPRINT_TAG}: it was registered by "
                "other means; register a model with `batteryops train`"
            )

        def fetch(into: Path) -> Path:
            with self._asked(f"fetch the package of {named}"):
                into.mkdir(parents=True)
                return Path(self._client.download_artifacts(found.run_id, PACKAGE, str(into)))

        folder = folder_of(cache_folder, self.model_name, found.version, expected)
        return keep(folder, expected, fetch, named=f"{named} (run {found.run_id})")

    def check_artifacts(self) -> str:
        """Look whether new runs can keep their artifacts, and say where.

        A folder is made as the first run would, and written to; a place elsewhere is listed.

        Returns:
            Its URI without passwords.

        Raises:
            RegistryError: when it cannot be written to, or does not answer.
        """
        with self._asked("look up the experiment"):
            found = self._client.get_experiment_by_name(self.experiment)
        place = self.artifact_root if found is None else found.artifact_location
        if place is None:
            return "left to the server until the first run"
        check_place(place, self.tracking_uri)
        return masked(place)

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401 - MLflow publishes no types
        return open_client(self.tracking_uri, self.artifact_root)

    @contextmanager
    def _asked(self, doing: str) -> Iterator[None]:
        """Turn what MLflow raises into a RegistryError that says what was being done."""
        _ = self._client  # opened first: MLflow must be imported in its own way
        try:
            yield
        except BatteryOpsError:
            raise
        except Exception as error:  # MLflow lets through what any storage library raises
            reason = hidden(first_line(error), self.tracking_uri, self.artifact_root or "")
            raise RegistryError(
                f"could not {doing} in {masked(self.tracking_uri)}: {reason}"
            ) from error

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - heavy, see store

        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                created: str = self._client.create_experiment(
                    self.experiment, artifact_location=self.artifact_root
                )
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(self.experiment)  # another was faster
            else:
                return created
        if found.lifecycle_stage != "active":
            raise RegistryError(
                f"experiment {self.experiment!r} was deleted; restore it with "
                f"`mlflow experiments restore`, or set registry.experiment to another name"
            )
        experiment_id: str = found.experiment_id
        return experiment_id

    def _aliases(self) -> dict[str, int]:
        """Version by alias; empty when the model was never registered."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - heavy, see store

        try:
            model = self._client.get_registered_model(self.model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return {alias: int(number) for alias, number in model.aliases.items()}

    def _find(self, number: int, aliases: Mapping[str, int] | None = None) -> ModelVersion | None:
        with self._asked(f"look up version {number}"):
            from mlflow.exceptions import MlflowException  # noqa: PLC0415 - heavy, see store

            if number < 1:  # MLflow calls these malformed
                return None
            try:
                found = self._client.get_model_version(self.model_name, str(number))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
            return self._read(found, self._aliases() if aliases is None else aliases)

    def _read(self, found: Any, aliases: Mapping[str, int]) -> ModelVersion:  # noqa: ANN401 - MLflow's, untyped
        number = int(found.version)
        held = tuple(sorted(alias for alias, holder in aliases.items() if holder == number))
        tags = dict(found.tags)
        status: Status = "archived" if ARCHIVED_TAG in tags else "candidate"
        if CHAMPION in held:
            status = "champion"
        elif CHALLENGER in held:
            status = "challenger"
        return ModelVersion(
            version=number,
            run_id=found.run_id,
            created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            aliases=held,
            status=status,
            tags=tags,
            metrics=MetricsOfRun(partial(self._metrics, found.run_id)),
        )

    def _metrics(self, run_id: str) -> dict[str, float]:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - heavy, see store

        with self._asked(f"read the metrics of run {run_id}"):
            try:
                return dict(self._client.get_run(run_id).data.metrics)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return {}  # the run was purged; its version stays


def _location(root: str | Path | None) -> str | None:
    """A folder as an absolute file URI, so that the working folder does not matter later."""
    if root is None or (isinstance(root, str) and _URI.match(root)):
        return root
    return Path(root).resolve().as_uri()
