"""One frozen Settings object: config/production.yaml < environment BATTERYOPS_* < flags."""

import difflib
import fnmatch
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as EnvironmentSyntaxError

from batteryops.errors import SettingsError, UnknownAssetError
from batteryops.schema import Profile
from batteryops.urls import masked

CONFIG_NAME: Final = "production.yaml"

PREFIX: Final = "BATTERYOPS_"
"""Of every environment variable that is a setting."""

CONFIG_VARIABLE: Final = f"{PREFIX}CONFIG"

WORD_PARAMETERS: Final = frozenset({"tree_method", "grow_policy", "device"})
"""Training parameters that are words; all others are numbers."""

_LIMIT: Final = re.compile(
    r"(<=?|>=?)\s*(?!(nan|inf|infinity)$)"  # those are no numbers to pass, nor baselines
    r"([-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[a-z]+(_[a-z]+)*)"
)

_GIVEN_LENGTH: Final = 100  # what was given is shown up to here

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Range = tuple[float, float]


def _increasing(value: Range) -> Range:
    low, high = value
    if not low <= high:  # also where one of them is NaN
        raise ValueError(f"a range is given as [low, high]; {low} is not at most {high}")
    return value


OrderedRange = Annotated[Range, AfterValidator(_increasing)]


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
    limit: str

    @field_validator("limit")
    @classmethod
    def _is_a_limit(cls, limit: str) -> str:
        if not _LIMIT.fullmatch(limit):
            raise ValueError(
                "expected <, <=, > or >= and a number or the name of a baseline, as in '< 0.02'"
            )
        return limit


class TrainingSettings(_Section):
    """What is fitted, how, and what it must pass."""

    view: str
    algorithms: Mapping[str, str]
    seed: int
    parameters: Mapping[str, float | int | str]
    gates: tuple[GateSettings, ...]

    @field_validator("parameters")
    @classmethod
    def _numbers_are_numbers(
        cls, parameters: Mapping[str, float | int | str]
    ) -> Mapping[str, float | int | str]:
        """Numbers may come as text, as they do from the environment; ranges are checked later."""
        for name, value in parameters.items():
            if name not in WORD_PARAMETERS:
                try:
                    float(value)
                except ValueError:
                    raise ValueError(f"{name} is {value!r}, expected a number") from None
        return parameters

    @field_validator("gates")
    @classmethod
    def _gates_have_names_of_their_own(
        cls, gates: tuple[GateSettings, ...]
    ) -> tuple[GateSettings, ...]:
        for name, times in Counter(gate.name for gate in gates).items():
            if times > 1:
                raise ValueError(f"{times} gates are named {name!r}; each needs its own name")
        return gates


class EvaluationSettings(_Section):
    """How data is split, and how uncertainty is estimated."""

    test_share: Annotated[float, Field(gt=0, lt=1)]
    train_share: Annotated[float, Field(gt=0, lt=1)]
    groups: tuple[tuple[str, ...], ...]
    max_folds: Annotated[int, Field(ge=2)]
    calibration_folds: Annotated[int, Field(ge=2)]
    bootstrap_resamples: Annotated[int, Field(ge=10)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    default_profile: str


class TournamentSettings(_Section):
    """Which algorithms are compared, all when none is named, and how many of the best combined."""

    entrants: tuple[str, ...]
    folds: Annotated[int, Field(ge=2)]
    inner_folds: Annotated[int, Field(ge=2)]
    combined: Annotated[int, Field(ge=1)]


class FleetSettings(_Section):
    """What the scorecard of a fleet calls healthy, to be monitored, or a priority."""

    min_soh: Share
    monitor_soh: Share
    priority_months: Annotated[float, Field(ge=0)]
    monitor_months: Annotated[float, Field(ge=0)]
    temperature_correlation: Annotated[float, Field(gt=0, le=1)]
    monitor_rise_k: Annotated[float, Field(gt=0)]
    priority_rise_k: Annotated[float, Field(gt=0)]
    max_unusable_share: Share
    min_cycles: Annotated[int, Field(ge=3)]

    @model_validator(mode="after")
    def _monitoring_comes_first(self) -> Self:
        for sooner, later, ordered in (
            ("monitor_soh", "min_soh", self.monitor_soh >= self.min_soh),
            ("monitor_months", "priority_months", self.monitor_months >= self.priority_months),
            ("priority_rise_k", "monitor_rise_k", self.priority_rise_k >= self.monitor_rise_k),
        ):
            if not ordered:
                raise ValueError(f"{sooner} is below {later}; a priority is worse than to monitor")
        return self


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


def find_config() -> Path:
    """The configuration file in force when none is named.

    BATTERYOPS_CONFIG, else config/production.yaml under the working folder, else the copy that
    travels with the package.

    Raises:
        SettingsError: when none of them exists.
    """
    here = Path(__file__).resolve()
    named = os.environ.get(CONFIG_VARIABLE)
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
        f"name one with --config or {CONFIG_VARIABLE}"
    )


def load_settings(config: Path | None = None, **flags: Any) -> Settings:  # noqa: ANN401 - of any setting's type
    """Read the configuration once.

    Args:
        config: the YAML file; `find_config` when None.
        flags: values that outrank file and environment, by the names of `Settings`; those that
            are None were not given.

    Raises:
        SettingsError: naming each setting that is missing, unknown or out of range.
    """
    _refuse_unknown_variables()
    path = config or find_config()

    class FromFile(Settings):
        file_content = _read_yaml(path)

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return FromFile(**given)
    except EnvironmentSyntaxError as error:
        broken = ", ".join(variable for variable in _variables() if not _is_readable(variable))
        raise SettingsError(
            f"environment variable {broken}: no valid JSON; a section or a list is given as JSON, "
            f"one key as {PREFIX}SERVING__PORT=9000"
        ) from error
    except ValidationError as error:
        problems = "; ".join(_told(problem) for problem in error.errors())
        raise SettingsError(f"{path}: {problems}") from error


def _told(problem: Mapping[str, Any]) -> str:
    """One problem that pydantic found: where, what, and what was given where that is short."""
    where = ".".join(map(str, problem["loc"])) or "configuration"
    if problem["type"] == "missing":
        return f"{where} is missing"
    given = masked(repr(problem["input"]))  # a URL under a misspelt key, say
    shown = f" (given {given})" if problem["loc"] and len(given) <= _GIVEN_LENGTH else ""
    path = [str(part).lower() for part in problem["loc"]]
    variables = [
        variable
        for variable in _variables()
        if path and all(a == b for a, b in zip(_keys(variable), path, strict=False))
    ]
    source = f", as {' and '.join(variables)} has it" if variables else ""
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}{shown}{source}"


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SettingsError(f"configuration file {path} does not exist")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506, it is a SafeLoader
    # ValueError: no UTF-8, or a date like 2026-02-30
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(
            f"configuration file {path} cannot be read as YAML: {reason}"
        ) from error
    if content is None:
        return {}
    if isinstance(content, dict) and (odd := [n for n in content if not isinstance(n, str)]):
        raise SettingsError(
            f"configuration file {path}: {odd[0]!r} is no setting's name; expected settings by "
            f"name, as in {CONFIG_NAME}"
        )
    if not isinstance(content, dict):
        raise SettingsError(
            f"configuration file {path} holds a {type(content).__name__}; expected settings by "
            f"name, as in {CONFIG_NAME}"
        )
    return content


class _Loader(yaml.SafeLoader):
    """As YAML's own, but a key given twice is an error: the first would have no effect."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002, declared by PyYAML
        """The mapping of a node."""
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, times in keys.items():
            if times > 1:
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"{name} is given {times} times in the part from line {line}")
        return super().construct_mapping(node, deep)


def _variables() -> list[str]:
    """The variables of the environment that are meant as settings."""
    return sorted(
        name
        for name, value in os.environ.items()
        if name.upper().startswith(PREFIX) and name != CONFIG_VARIABLE and value
    )


def _keys(variable: str) -> list[str]:
    return variable.lower().removeprefix(PREFIX.lower()).split("__")


def _is_readable(variable: str) -> bool:
    """Whether a variable's text is JSON where it stands for a section or a list."""
    name, *keys = _keys(variable)
    text = os.environ[variable].strip()
    if _is_plain(Settings.model_fields[name].annotation) or (keys and text[:1] not in {"[", "{"}):
        return True
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _refuse_unknown_variables() -> None:
    """A misspelt variable would have no effect, and nobody would notice."""
    sections: dict[str, Mapping[str, Any] | None] = {}  # None: keys of any name
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            sections[name] = kind.model_fields
        else:
            sections[name] = {} if _is_plain(kind) else None
    known = [CONFIG_VARIABLE, *(f"{PREFIX}{name}".upper() for name in sections)]
    known += [
        f"{PREFIX}{name}__{key}".upper() for name, keys in sections.items() for key in keys or ()
    ]
    for variable in _variables():
        name, *keys = _keys(variable)
        inner = sections.get(name)
        if name in sections and (not keys or inner is None or keys[0] in inner):
            continue
        near = difflib.get_close_matches(variable.upper(), known, n=1)
        meant = f"; did you mean {near[0]}?" if near else ";"
        names = ", ".join(name.upper() for name in sorted(sections))
        raise SettingsError(
            f"environment variable {variable} is no setting{meant} expected {CONFIG_VARIABLE}, or "
            f"{PREFIX} and one of {names}, with its keys after two underscores each"
        )


def _is_plain(annotation: Any) -> bool:  # noqa: ANN401 - whatever a field is declared as
    """Whether a setting is one value, without keys of its own."""
    return annotation in (str, Path, Path | None)
