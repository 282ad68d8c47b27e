"""Alerts on the model: its error, its answers, and the drift of what it is asked."""

from batteryops.monitoring.alert_rule import Rule
from batteryops.monitoring.metric_names import STATUS
from batteryops.settings import Settings


def performance_alerts(settings: Settings) -> tuple[Rule, ...]:
    """How good answers are."""
    monitoring = settings.monitoring
    return (
        Rule(
            name="ModelAccuracyDegraded",
            expr=f"max(model_mae) > {monitoring.mae_alert_ah:g}",
            wait="5m",
            severity="critical",
            cause="accuracy",
            summary="The model's error is larger than it may be",
            description='Mean absolute error {{ $value | printf "%.4f" }} Ah on answers that '
            f"have a label, expected at most {monitoring.mae_alert_ah:g} Ah.",
            meaning="Measured capacities say that answers are worse than promised. Labels are "
            "late: this is about answers of the days before.",
            remedy=(
                (
                    "ml_model_performance: is it one version, one profile, one band of SoH? Are "
                    "the bounds wide, because few vehicles have labels?"
                ),
                (
                    "A new version that is worse than the one before it: roll back "
                    "(`batteryops promote` the former one)."
                ),
                (
                    "Where drift is in alert as well, see DataDriftDetected: the model has not "
                    "seen such data, and needs to."
                ),
            ),
            keep="30m",
        ),
        Rule(
            name="ModelFitDegraded",
            expr=f"min(model_r2) < {monitoring.r2_alert:g}",
            wait="5m",
            severity="warning",
            cause="accuracy",
            summary="The model explains less than it should",
            description='R2 {{ $value | printf "%.3f" }} on answers that have a label, expected '
            f"at least {monitoring.r2_alert:g}.",
            meaning="R2 depends on how different the labelled batteries are: with batteries of "
            "one age it is low at any error. Read it beside model_mae.",
            remedy=("As for ModelAccuracyDegraded, where model_mae says the same.",),
            keep="30m",
        ),
        Rule(
            name="PredictionsOutOfRange",
            expr=f"max(predictions_out_of_range_share) > {monitoring.max_out_of_range_share:g}",
            wait="5m",
            severity="critical",
            cause="predictions",
            summary="The model says what no battery can have",
            description="{{ $value | humanizePercentage }} of the predictions are outside of what "
            f"the profile allows, expected at most {monitoring.max_out_of_range_share:.0%}.",
            meaning="An incident by itself: inputs in a wrong unit, a wrong profile for the "
            "assets, or a broken model.",
            remedy=(
                "Which vehicles? `batteryops monitor --json` names them under quality.",
                (
                    "Since a promotion: roll back. Else look at units and at `assets` in the "
                    "configuration."
                ),
            ),
            keep="15m",
        ),
        Rule(
            name="PredictionsOutOfDomain",
            expr="max(predictions_out_of_domain_share) > "
            f"{monitoring.alerts.out_of_domain_share:g}",
            wait="15m",
            severity="warning",
            cause="domain",
            summary="Many questions are unlike anything in training",
            description="{{ $value | humanizePercentage }} of the predictions are out of the "
            f"training domain, expected at most {monitoring.alerts.out_of_domain_share:.0%}.",
            meaning="No number is given for these (`serving.out_of_domain: withhold`): the fleet "
            "does something that the model was not trained on.",
            remedy=(
                "The answers name the features: which are they, on which vehicles?",
                "New vehicles or a new climate: label some, and train with them.",
            ),
            keep="30m",
        ),
    )


def drift_alerts(settings: Settings) -> tuple[Rule, ...]:
    """What is asked otherwise than in training."""
    psi = settings.monitoring.psi_alert
    return (
        Rule(
            name="DataDriftDetected",
            expr=f"(max by (feature) (feature_psi) > {psi:g} and on (feature) "
            f"max by (feature) (feature_drift_status) == {STATUS['alert']}) "
            "* on (feature) group_right () max by (feature, cause) (drift_cause)",
            wait="10m",
            severity="warning",
            cause="",
            summary="{{ $labels.feature }} no longer looks as in training: {{ $labels.cause }}",
            description='PSI of {{ $labels.feature }} is {{ $value | printf "%.3f" }}, alert '
            f"above {psi:g}; the cause seems to be {{{{ $labels.cause }}}}.",
            meaning="The feature is distributed otherwise than in training, by more than chance "
            "and by enough to matter. The label `cause` says what it looks like, and features "
            "that drift for one cause are one incident.",
            remedy=(
                (
                    "`ageing`: the fleet is older than training. Labels of old batteries, then "
                    "retraining."
                ),
                (
                    "`climate`, `operating_mode`: a season or a use that training lacks. Watch "
                    "model_mae_estimate; retrain when labels have come."
                ),
                "`new_chemistry`: other batteries. They need a profile and a model of their own.",
                "`thermal_management`: another cooling. Retrain with labels from after it.",
                (
                    "`software_update`: the feature is computed otherwise. Ask what was released; "
                    "learn from rows after it alone."
                ),
                "`sensor_fault…`: mend the sensor; see SensorFault, which silences this alert.",
                "`unknown`: `batteryops drift` draws both distributions side by side.",
            ),
            keep="30m",
        ),
        Rule(
            name="PredictionDrift",
            expr=f"max(prediction_drift_status) == {STATUS['alert']}",
            wait="10m",
            severity="warning",
            cause="prediction_drift",
            summary="Predictions are distributed otherwise than in training",
            description="The distribution of predictions is in alert; prediction_psi and "
            "prediction_ks say by how much.",
            meaning="What the model says has moved, whatever single features do. An older fleet "
            "does that, and so does a broken input.",
            remedy=("See which features drift beside it; without any, look at the promotion.",),
            keep="30m",
        ),
        Rule(
            name="SensorFault",
            expr='max by (feature) (drift_cause{cause=~"sensor_fault.*"}) == 1',
            wait="1m",
            severity="critical",
            cause="sensor_fault",
            summary="{{ $labels.feature }} comes from a broken sensor",
            description="Values of {{ $labels.feature }} look like a sensor that is stuck, off, "
            "in another unit or sends a sentinel.",
            meaning="No battery does that. A model that learned it would be spoilt: retraining is "
            "not asked for. Drift of the same feature is silenced.",
            remedy=(
                "`batteryops drift` says which kind of fault; the run's document names vehicles.",
                "Mend or replace the sensor, or the unit's conversion at its source.",
                "Leave the window out of training: quarantine it (`batteryops data check`).",
            ),
            keep="30m",
        ),
        Rule(
            name="DriftNotJudged",
            expr="max(drift_refused) == 1",
            wait="30m",
            severity="warning",
            cause="monitoring",
            summary="The monitoring run cannot judge drift",
            description="The newest run refused; its document says why under `drift.refused`.",
            meaning="No drift alert can come. The usual reasons: a package without a fitted "
            "reference, one of another version of the view, too few rows.",
            remedy=("`batteryops monitor` says why; train again where the package is too old.",),
            keep="30m",
        ),
        Rule(
            name="RetrainingWanted",
            expr="max(retraining_wanted) == 1",
            wait="10m",
            severity="info",
            cause="retraining",
            summary="Critical features drift: the model should be trained anew",
            description="A feature of `monitoring.critical_features` is in alert, and no sensor "
            "is the cause.",
            meaning="A wish, not an incident: it is shown and opens none.",
            remedy=(
                "A running `batteryops controller` retrains by itself, once there are labels.",
                "`batteryops retrain list` says how far it is.",
                "Without one, `batteryops retrain check` does it now.",
            ),
            keep="30m",
        ),
    )
