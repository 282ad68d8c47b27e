"""When a challenger has won, lost, or done harm: the numbers that decide a trial."""

from dataclasses import dataclass

from batteryops.errors import SettingsError


@dataclass(frozen=True, slots=True)
class ABRules:
    """What a trial must show.

    The first five are the source system's; the others say what its statistics left open.

    Args:
        min_predictions: labelled answers that each model needs.
        level: of each one-sided test, at all looks together; p must be below.
        min_effect_size: Cohen's d over the pooled deviation that must be exceeded.
        max_latency_ratio: the challenger's median over the champion's. A 95th percentile is one of
            the machine: of a few batches it was 1.5 times another's for the very same model.
        min_days: that a trial takes, so that it sees every day of a week.
        max_days: after which a challenger that has not won has lost. Labels come weeks late.
        urgent_gain_ah: a challenger that errs less than the champion by more than this, with
            confidence at every look, is promoted sooner: to wait for the days of a week would do
            more harm than not to know them.
        urgent_days: that such a trial takes.
        urgent_predictions: labelled answers that each model needs in it.
        min_vehicles: of either model with labels; from fewer nothing is concluded.
        min_group_vehicles: from fewer nothing is concluded of a group: ten vehicles could not show
            that half the error is no harm.
        margin_share: by how much of the champion's mean error the challenger may be worse in any
            group; about what an effect of 0.2 is where errors are normal.
        max_failed_share: of its questions that the challenger may leave unanswered beyond the
            champion's.
        min_failures: fewer unanswered questions than these end no trial.
        max_unpaired_share: of the questions of a shadowed trial that one model alone answered: the
            rest may be the easy ones.
        challenger_share: of the vehicles, where they are split.
        sample_ratio_level: p below it of the vehicles' split ends the trial. Small, as it is looked
            at every hour.
        hidden_cost: how many times an error counts that calls a battery good which was measured
            below the line; 1: as any other.

    Raises:
        SettingsError: when a number is out of its range.
    """

    min_predictions: int = 500
    level: float = 0.05
    min_effect_size: float = 0.2
    max_latency_ratio: float = 1.2
    min_days: float = 7.0
    max_days: float = 60.0
    urgent_gain_ah: float = 0.03
    urgent_days: float = 1.0
    urgent_predictions: int = 100
    min_vehicles: int = 10
    min_group_vehicles: int = 20
    margin_share: float = 0.15
    max_failed_share: float = 0.01
    min_failures: int = 5
    max_unpaired_share: float = 0.05
    challenger_share: float = 0.5
    sample_ratio_level: float = 0.001
    hidden_cost: float = 1.0

    def __post_init__(self) -> None:
        """Refuse rules that no trial could be judged by."""
        for name in ("level", "challenger_share", "sample_ratio_level"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise SettingsError(f"{name} is {getattr(self, name)}; expected above 0, below 1")
        for name in ("max_failed_share", "max_unpaired_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise SettingsError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        for name in ("min_effect_size", "margin_share", "max_latency_ratio", "urgent_gain_ah"):
            if not getattr(self, name) > 0.0:
                raise SettingsError(f"{name} is {getattr(self, name)}; expected above 0")
        least = {
            "min_predictions": 2,
            "urgent_predictions": 2,
            "min_vehicles": 2,
            "min_group_vehicles": 2,
            "hidden_cost": 1,
        }
        for name, lowest in least.items():
            if not getattr(self, name) >= lowest:
                raise SettingsError(f"{name} is {getattr(self, name)}; expected at least {lowest}")
        if not 0.0 <= self.urgent_days <= self.min_days <= self.max_days:
            raise SettingsError(
                f"a trial takes {self.urgent_days} days where it is urgent, else {self.min_days} "
                f"to {self.max_days}; expected 0 or more, and none above the next"
            )
