"""Settings of a time lapse: the user's, in a home of its own, for a year that passes quickly."""

from typing import Final

from batteryops.features.views import get_view
from batteryops.lifecycle.time_lapse.world import VIEW
from batteryops.settings import Settings

FOLDER: Final = "time-lapse"
"""Under the home that the user names."""

PARAMETERS: Final = {"n_estimators": 100, "max_depth": 5, "learning_rate": 0.15, "n_jobs": 1}
"""Lighter models than by default: hundreds are fitted."""


def time_lapse_settings(settings: Settings) -> Settings:
    """What holds in the time lapse.

    Its labels say the truth of one trip each, and trips of a vehicle lie half a day apart at least:
    a label belongs to one answer. Its window is a week, so that what the fleet did before is no
    longer looked at, and drift of any feature asks for a new model. Drift is learned from 30 labels
    on, as these come weeks late. Everybody gets a number, also out of the training domain, so that
    fleets of models can be compared on all trips.
    """
    training, evaluation = settings.training, settings.evaluation
    monitoring, serving = settings.monitoring, settings.serving
    return settings.in_home(settings.home / FOLDER).model_copy(
        update={
            "environment": "time-lapse",
            "training": training.model_copy(
                update={
                    "view": VIEW,
                    "parameters": {**training.parameters, **PARAMETERS},
                }
            ),
            "evaluation": evaluation.model_copy(
                update={"max_folds": 5, "calibration_folds": 5, "bootstrap_resamples": 200}
            ),
            "monitoring": monitoring.model_copy(
                update={
                    "window_days": 7.0,
                    "label_tolerance_days": 0.2,
                    "critical_features": get_view(VIEW).names,
                }
            ),
            "retraining": settings.retraining.model_copy(
                update={
                    "report": False,
                    "calibration_folds": 3,
                    "strategies": ("warm_start", "full"),
                    "min_labels": 30,
                    "probation_days": 7.0,
                }
            ),
            "serving": serving.model_copy(
                update={
                    "port": 0,
                    "workers": 1,
                    "out_of_domain": "give",
                    "watch_s": 0.2,
                    "routing": serving.routing.model_copy(update={"mode": "shadow"}),
                    "cache": serving.cache.model_copy(update={"max_entries": 0}),
                    "telemetry": False,
                    "explain_share": 0.0,
                }
            ),
        }
    )
