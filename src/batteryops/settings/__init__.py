"""One frozen Settings object: config/production.yaml < environment BATTERYOPS_* < flags."""

from batteryops.settings.configuration import PREFIX, Settings
from batteryops.settings.reading import CONFIG_NAME, CONFIG_VARIABLE, find_config, load_settings
from batteryops.settings.sections import (
    WORD_PARAMETERS,
    EvaluationSettings,
    FleetSettings,
    GateSettings,
    OrderedRange,
    ProfileSettings,
    QualitySettings,
    Range,
    RecordsSettings,
    RegistrySettings,
    ServingSettings,
    Share,
    TournamentSettings,
    TrainingSettings,
)

__all__ = [
    "CONFIG_NAME",
    "CONFIG_VARIABLE",
    "PREFIX",
    "WORD_PARAMETERS",
    "EvaluationSettings",
    "FleetSettings",
    "GateSettings",
    "OrderedRange",
    "ProfileSettings",
    "QualitySettings",
    "Range",
    "RecordsSettings",
    "RegistrySettings",
    "ServingSettings",
    "Settings",
    "Share",
    "TournamentSettings",
    "TrainingSettings",
    "find_config",
    "load_settings",
]
