"""One frozen Settings object: config/production.yaml < environment BATTERYOPS_* < flags."""

import fnmatch
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from batteryops.errors import SettingsError, UnknownAssetError
from batteryops.schema import Profile

CONFIG_NAME: Final = "production.yaml"

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Range = tuple[float, float]


def _increasing(value: object) -> object:
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] > value[1]:  # noqa: PLR2004
        raise ValueError(f"a range is given as [low, high]; {value[0]} is above {value[1]}")
    return value


OrderedRange = Annotated[Range, BeforeValidator(_increasing)]


class _Section(BaseModel):
    """A part of the configuration: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ProfileSettings(_Section):
    """One entry of `profiles`; `batteryops.schema.Profile` says what each field means."""

    level: Literal["cell", "pack"]
    chemistry: str
    nominal_capacity_ah: Annotated[float, Field(gt=0)] | None
    cells_in_series: Annotated[int, Field(ge=1)] | None
    voltage_mean_v: OrderedRange
    current_mean_a: OrderedRange
    temperature_mean_c: OrderedRange
    voltage_sample_v: OrderedRange
    cutoff_v: Annotated[float, Field(gt=0)]
    capacity_range_share: OrderedRange
    min_capacity_share: Share


class QualitySettings(_Section):
    """Limits of the data-quality checks."""

    max_missing_share: Share
    outlier_sigma: Annotated[float, Field(gt=0)]
    max_outlier_share: Share
    max_duplicate_share: Share
    max_quarantined_share: Share
    min_samples: Annotated[int, Field(ge=1)]
    sentinels: tuple[float, ...]


class GateSettings(_Section):
    """A threshold under a named protocol; `limit` is an operator and a number or a baseline."""

    name: str
    protocol: str
    metric: str
    limit: Annotated[
        str, Field(pattern=r"^(<|<=|>|>=)\s*([-+]?[0-9.]+([eE][-+]?[0-9]+)?|[a-z_]+)$")
    ]


class TrainingSettings(_Section):
    """What is fitted, how, and what it must pass."""

    view: str
    seed: int
    parameters: Mapping[str, float | int | str]
    gates: tuple[GateSettings, ...]


class EvaluationSettings(_Section):
    """How data is split, and how uncertainty is estimated."""

    test_share: Annotated[float, Field(gt=0, lt=1)]
    train_share: Annotated[float, Field(gt=0, lt=1)]
    groups: tuple[tuple[str, ...], ...]
    max_folds: Annotated[int, Field(ge=2)]
    calibration_folds: Annotated[int, Field(ge=2)]
    bootstrap_resamples: Annotated[int, Field(ge=10)]
    confidence: Annotated[float, Field(gt=0, lt=1)]


class RegistrySettings(_Section):
    """Where runs and model versions live."""

    model_name: str
    experiment: str
    tracking_uri: str | None
    artifact_root: str | None


class RecordsSettings(_Section):
    """Where the prediction log and the ledger live, as SQLAlchemy URLs."""

    predictions_url: str | None
    ledger_url: str | None


class ServingSettings(_Section):
    """Where the HTTP server listens, and what is answered outside of the training domain."""

    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    out_of_domain: Literal["withhold", "give"]


class Settings(BaseSettings):
    """Everything that can be configured, checked once, never changed afterwards."""

    model_config = SettingsConfigDict(
        env_prefix="BATTERYOPS_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
    )

    environment: str
    home: Path
    data: Path | None
    profiles: dict[str, ProfileSettings]
    assets: dict[str, str]
    quality: QualitySettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    registry: RegistrySettings
    records: RecordsSettings
    serving: ServingSettings

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
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)

    @model_validator(mode="after")
    def _assets_have_profiles(self) -> Self:
        for pattern, name in self.assets.items():
            if name not in self.profiles:
                raise ValueError(
                    f"assets: pattern {pattern!r} names profile {name!r}, "
                    f"which is not among {', '.join(self.profiles)}"
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


def find_config() -> Path:
    """The configuration file in force when none is named.

    BATTERYOPS_CONFIG, else config/production.yaml under the working folder, else the copy that
    travels with the package.

    Raises:
        SettingsError: when none of them exists.
    """
    here = Path(__file__).resolve()
    named = os.environ.get("BATTERYOPS_CONFIG")
    candidates = (
        [Path(named)]
        if named
        else [
            Path("config") / CONFIG_NAME,
            here.parent / CONFIG_NAME,  # installed from a wheel
            here.parents[2] / "config" / CONFIG_NAME,  # installed in place from a checkout
        ]
    )
    for path in candidates:
        if path.is_file():
            return path
    raise SettingsError(
        f"no configuration file: looked for {', '.join(map(str, candidates))}; "
        "name one with --config or BATTERYOPS_CONFIG"
    )


def load_settings(config: Path | None = None, **flags: Any) -> Settings:  # noqa: ANN401
    """Read the configuration once.

    Args:
        config: the YAML file; `find_config` when None.
        flags: values that outrank file and environment, by the names of `Settings`; those that
            are None were not given.

    Raises:
        SettingsError: naming each setting that is missing, unknown or out of range.
    """
    path = config or find_config()
    if not path.is_file():
        raise SettingsError(f"configuration file {path} does not exist")

    class FromFile(Settings):
        model_config = SettingsConfigDict(yaml_file=path)

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return FromFile(**given)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'configuration'}: {problem['msg']}"
            + (f" (given {problem['input']!r})" if problem["loc"] else "")
            for problem in error.errors()
        )
        raise SettingsError(f"{path}: {problems}") from error
