"""The face of the room: what checks data, and what the checks say."""

from batteryops.quality.feature_checks import MeanColumns, check_features
from batteryops.quality.recording_checks import check_recording
from batteryops.quality.report import CheckResult, QualityReport

__all__ = ["CheckResult", "MeanColumns", "QualityReport", "check_features", "check_recording"]
