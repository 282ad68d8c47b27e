"""The sections of the configuration: which keys each has, and what each key may be."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

WORD_PARAMETERS: Final = frozenset({"tree_method", "grow_policy", "device"})
"""Training parameters that are words; all others are numbers."""

_LIMIT: Final = re.compile(
    r"(<=?|>=?)\s*(?!(nan|inf|infinity)$)"  # those are no numbers to pass, nor baselines
    r"([-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[a-z]+(_[a-z]+)*)"
)

_SERVER: Final = re.compile(r"https?://[^\s/@?#]+(/[^\s@?#]*)?")

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Range = tuple[float, float]


def _increasing(value: Range) -> Range:
    low, high = value
    if not low <= high:  # also where one of them is NaN
        raise ValueError(f"a range is given as [low, high]; {low} is not at most {high}")
    return value


OrderedRange = Annotated[Range, AfterValidator(_increasing)]


def _is_a_server(value: str) -> str:
    if not _SERVER.fullmatch(value):
        raise ValueError(
            f"{value!r} is no server's address; expected http:// or https:// and a host without "
            "user and password, as in http://127.0.0.1:8000"
        )
    return value.rstrip("/")


ServerUrl = Annotated[str, AfterValidator(_is_a_server)]


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


class RoutingSettings(_Section):
    """How traffic is divided while a challenger stands beside the champion.

    `split`: a share of the vehicles is answered by the challenger. `shadow`: both answer, the
    champion's answer goes out. `off`: the challenger is not asked.
    """

    mode: Literal["split", "shadow", "off"]
    share: Share


class CacheSettings(_Section):
    """Answers that are given again to the very same features; 0 entries: none."""

    max_entries: Annotated[int, Field(ge=0)]
    ttl_s: Annotated[float, Field(gt=0)]


class LogSettings(_Section):
    """When an answer is acknowledged, and how many may wait for the log.

    `sync`: once it is on disk. `async`: once it waits for that; a killed server loses those.
    """

    mode: Literal["sync", "async"]
    queue_rows: Annotated[int, Field(ge=1)]
    group_ms: Annotated[float, Field(ge=0, le=1000)]


class LimitSettings(_Section):
    """What a client may ask of the server."""

    body_bytes: Annotated[int, Field(ge=1024)]
    batch_rows: Annotated[int, Field(ge=1)]
    batch_body_bytes: Annotated[int, Field(ge=1024)]
    batch_json_bytes: Annotated[int, Field(ge=1024)]
    batch_unfolded_bytes: Annotated[int, Field(ge=1024)]
    arrival_timeout_s: Annotated[float, Field(gt=0)]
    rate_per_s: Annotated[float, Field(gt=0)] | None


class ServingSettings(_Section):
    """Where the HTTP server listens, who is let in, and how it answers."""

    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    workers: Annotated[int, Field(ge=1, le=256)]
    out_of_domain: Literal["withhold", "give"]
    watch_s: Annotated[float, Field(gt=0)]
    routing: RoutingSettings
    cache: CacheSettings
    log: LogSettings
    limits: LimitSettings
    explain_share: Share
    telemetry: bool


class AlertSettings(_Section):
    """From where on Prometheus alerts, and when an incident is over."""

    run_age_hours: Annotated[float, Field(gt=0)]
    backup_age_hours: Annotated[float, Field(gt=0)]
    error_share: Share
    log_lag_s: Annotated[float, Field(gt=0)]
    out_of_domain_share: Share
    missing_share: Share
    stuck_share: Share
    feature_out_of_range_share: Share
    disk_free_share: Share
    quiet_minutes: Annotated[float, Field(gt=0)]


class MonitoringSettings(_Section):
    """What is looked at of a model in service, and from where on it matters."""

    window_days: Annotated[float, Field(gt=0)]
    psi_warning: Annotated[float, Field(gt=0)]
    psi_alert: Annotated[float, Field(gt=0)]
    ks_warning: Annotated[float, Field(gt=0, le=1)]
    ks_alert: Annotated[float, Field(gt=0, le=1)]
    level: Annotated[float, Field(gt=0, lt=1)]
    min_expected_per_bin: Annotated[float, Field(ge=1)]
    critical_features: tuple[str, ...]
    temperature_bands_c: OrderedRange
    label_tolerance_days: Annotated[float, Field(ge=0)]
    min_labels: Annotated[int, Field(ge=1)]
    max_out_of_range_share: Share
    mae_alert_ah: Annotated[float, Field(gt=0)]
    r2_alert: Annotated[float, Field(le=1)]
    latency_p95_alert_s: Annotated[float, Field(gt=0)]
    label_lag_alert_days: Annotated[float, Field(gt=0)]
    alerts: AlertSettings

    @model_validator(mode="after")
    def _a_warning_comes_first(self) -> Self:
        for what, warning, alert in (
            ("psi", self.psi_warning, self.psi_alert),
            ("ks", self.ks_warning, self.ks_alert),
        ):
            if warning > alert:
                raise ValueError(f"{what}_warning {warning} is above {what}_alert {alert}")
        return self


class TrialSettings(_Section):
    """What a challenger must show; `batteryops.evaluation.ab_rules.ABRules` says what each means.

    The keys, defaults and ranges are those of `ABRules`, which `tests/test_settings.py` holds.
    """

    min_predictions: Annotated[int, Field(ge=2)] = 500
    level: Annotated[float, Field(gt=0, lt=1)] = 0.05
    min_effect_size: Annotated[float, Field(gt=0)] = 0.2
    max_latency_ratio: Annotated[float, Field(gt=0)] = 1.2
    min_days: Annotated[float, Field(ge=0)] = 7.0
    max_days: Annotated[float, Field(ge=0)] = 60.0
    urgent_gain_ah: Annotated[float, Field(gt=0)] = 0.03
    urgent_days: Annotated[float, Field(ge=0)] = 1.0
    urgent_predictions: Annotated[int, Field(ge=2)] = 100
    min_vehicles: Annotated[int, Field(ge=2)] = 10
    min_group_vehicles: Annotated[int, Field(ge=2)] = 20
    margin_share: Annotated[float, Field(gt=0)] = 0.15
    max_failed_share: Share = 0.01
    min_failures: int = 5
    max_unpaired_share: Share = 0.05
    challenger_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    sample_ratio_level: Annotated[float, Field(gt=0, lt=1)] = 0.001
    hidden_cost: Annotated[float, Field(ge=1)] = 1.0

    @model_validator(mode="after")
    def _it_begins_before_it_ends(self) -> Self:
        if not self.urgent_days <= self.min_days <= self.max_days:
            raise ValueError(
                f"urgent_days {self.urgent_days}, min_days {self.min_days} and max_days "
                f"{self.max_days}: none may be above the next"
            )
        return self


class RetrainingSettings(_Section):
    """When a model learns again, from how much, how it is tried, and how long it is on probation.

    The limits of MAE and PSI are those of `monitoring`: what alerts a person retrains the model.
    """

    weekday: Annotated[int, Field(ge=0, le=6)]
    hour_utc: Annotated[int, Field(ge=0, le=23)]
    new_trips: Annotated[int, Field(ge=1)]
    min_labels: Annotated[int, Field(ge=2)]
    min_label_vehicles: Annotated[int, Field(ge=2)]
    cooldown_days: Annotated[float, Field(ge=0, le=366)]
    max_runs_per_week: Annotated[int, Field(ge=0)]
    ask_again_days: Annotated[float, Field(gt=0, le=366)]
    lease_s: Annotated[float, Field(ge=1, le=86_400)]
    check_every_minutes: Annotated[float, Field(gt=0)]
    monitor_every_minutes: Annotated[float, Field(gt=0)]
    strategies: Annotated[
        tuple[Literal["warm_start", "fine_tune", "ensemble", "full"], ...], Field(min_length=1)
    ]
    budget_s: Annotated[float, Field(gt=0)]
    max_trees: Annotated[int, Field(ge=1)]
    held_out_share: Annotated[float, Field(gt=0, lt=1)]
    replay: Annotated[float, Field(gt=0)]
    replay_rows: Annotated[int, Field(ge=1)]
    max_rows: Annotated[int, Field(ge=100)]
    reference_rows: Annotated[int, Field(ge=50)]
    calibration_folds: Annotated[int, Field(ge=2)]
    report: bool
    probation_days: Annotated[float, Field(gt=0)]
    servers: tuple[ServerUrl, ...]
    servers_key_file: str | None
    trial: TrialSettings
