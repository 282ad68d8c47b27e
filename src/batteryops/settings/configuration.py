"""The Settings object: every section, the profiles of assets, and where state lives."""

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pydantic import model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from batteryops.errors import SettingsError, UnknownAssetError
from batteryops.schema import Profile
from batteryops.settings.sections import (
    EvaluationSettings,
    FleetSettings,
    MonitoringSettings,
    ProfileSettings,
    QualitySettings,
    RecordsSettings,
    RegistrySettings,
    RetrainingSettings,
    ServingSettings,
    TournamentSettings,
    TrainingSettings,
)

PREFIX: Final = "BATTERYOPS_"
"""Of every environment variable that is a setting."""


class Settings(BaseSettings):
    """Everything that can be configured, checked once, never changed afterwards."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
    )

    file_content: ClassVar[Mapping[str, Any]] = {}

    environment: str
    home: Path
    data: Path | None
    profiles: dict[str, ProfileSettings]
    assets: dict[str, str]
    quality: QualitySettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    tournament: TournamentSettings
    fleet: FleetSettings
    registry: RegistrySettings
    records: RecordsSettings
    serving: ServingSettings
    monitoring: MonitoringSettings
    retraining: RetrainingSettings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence, first wins: flags, environment, file."""
        del dotenv_settings, file_secret_settings
        content = dict(cls.file_content)
        return init_settings, env_settings, InitSettingsSource(settings_cls, content)

    @model_validator(mode="after")
    def _assets_have_profiles(self) -> Self:
        for pattern, name in self.assets.items():
            if name not in self.profiles:
                raise ValueError(
                    f"assets: pattern {pattern!r} names profile {name!r}, "
                    f"which is not among {', '.join(self.profiles)}"
                )
        if self.evaluation.default_profile not in self.profiles:
            raise ValueError(
                f"evaluation.default_profile {self.evaluation.default_profile!r} is not among "
                f"{', '.join(self.profiles)}"
            )
        return self

    def profile(self, name: str) -> Profile:
        """The profile of that name.

        Raises:
            SettingsError: when the configuration declares none of that name.
        """
        if name not in self.profiles:
            raise SettingsError(f"profile {name!r} is not among {', '.join(self.profiles)}")
        return Profile(name=name, **self.profiles[name].model_dump())

    def profile_of(self, asset_id: str) -> Profile:
        """The profile of an asset: the first pattern under `assets` that matches its name.

        Raises:
            UnknownAssetError: when no pattern matches.
        """
        for pattern, name in self.assets.items():
            if fnmatch.fnmatchcase(asset_id, pattern):
                return self.profile(name)
        raise UnknownAssetError(
            f"asset {asset_id!r} has no profile: it matches none of the patterns "
            f"{', '.join(map(repr, self.assets))}; add one under `assets` in the configuration"
        )

    def in_home(self, home: Path) -> Self:
        """The same settings with every store under another home, whatever URLs are configured."""
        stores = {
            "home": home,
            "records": RecordsSettings(predictions_url=None, ledger_url=None),
            "registry": self.registry.model_copy(
                update={"tracking_uri": None, "artifact_root": None}
            ),
        }
        return self.model_copy(update=stores)

    @property
    def lake(self) -> Path:
        """Folder of the Parquet lake."""
        return self.home / "lake"

    @property
    def quarantine(self) -> Path:
        """Folder of the lists of quarantined cycles."""
        return self.home / "quarantine"

    @property
    def packages(self) -> Path:
        """Folder where model packages are written before they are registered, and cached."""
        return self.home / "packages"

    @property
    def training_rows(self) -> Path:
        """Folder of the rows that packages were trained on."""
        return self.home / "training"

    @property
    def baselines(self) -> Path:
        """Folder of the baselines of assets."""
        return self.home / "baselines"

    @property
    def predictions_url(self) -> str:
        """SQLAlchemy URL of the prediction log."""
        return self.records.predictions_url or _sqlite(self.home / "predictions.db")

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.records.ledger_url or _sqlite(self.home / "ledger.db")

    @property
    def tracking_uri(self) -> str:
        """URI of the MLflow tracking store and registry."""
        return self.registry.tracking_uri or _sqlite(self.home / "mlflow.db")

    @property
    def artifact_root(self) -> str:
        """Where MLflow keeps artifacts: a URI or a folder."""
        return self.registry.artifact_root or str(self.home / "artifacts")


def _sqlite(path: Path) -> str:
    return f"sqlite:///{path}"
