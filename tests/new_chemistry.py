"""Vehicles of a chemistry that the champion does not know, day by day: a loop in seconds."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import time_machine
import yaml

from batteryops.features.views import matrix
from batteryops.lifecycle.controller import Checked, check
from batteryops.lifecycle.loading import load_model, open_registry
from batteryops.lifecycle.preparation import prepare_table
from batteryops.lifecycle.progress import Progress, Silent
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.registration import register
from batteryops.lifecycle.training import train
from batteryops.records.identifiers import new_id
from batteryops.records.labels import Label
from batteryops.registry.mlflow_tracking import CHALLENGER, CHAMPION
from batteryops.schema import LABEL
from batteryops.settings import Settings, load_settings
from lifecycle.updating import VIEW, fleet, old_rows, put, record

START = datetime(2026, 3, 2, 8, tzinfo=UTC)
"""A Monday."""

VEHICLES = 20
A_DAY = 6  # questions of each vehicle
DAY = timedelta(days=1)
LATER = timedelta(minutes=1)
"""After the end of a day the loop looks."""


def loop_config(file: Path, **retraining: Any) -> Path:  # noqa: ANN401 - any setting
    """The production configuration with a small model, and steps that take days."""
    config: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parents[1] / "config" / "production.yaml").read_text()
    )
    small = {"n_estimators": 20, "learning_rate": 0.3, "max_depth": 4, "n_jobs": 1}
    config["training"]["parameters"] |= small
    config["evaluation"] |= {"bootstrap_resamples": 20, "max_folds": 2, "calibration_folds": 3}
    config["monitoring"] |= {"label_tolerance_days": 0.05}
    trial = config["retraining"]["trial"] | {
        "min_predictions": 100,
        "min_days": 0.9,
        "urgent_days": 0.9,
    }
    config["retraining"] |= {
        "calibration_folds": 3,
        "report": False,
        "strategies": ["warm_start"],
        "min_labels": 30,
        "cooldown_days": 30,
        "probation_days": 1.9,
        **retraining,
        "trial": trial | retraining.get("trial", {}),
    }
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


class Days:
    """A home, and the days that its vehicles drive.

    Args:
        settings: of the home.
        clock: that everything lives by.
        driven: days that are over.
    """

    def __init__(
        self, settings: Settings, clock: time_machine.Traveller, *, driven: int = 0
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.driven = driven
        self.clock.move_to(self.now)

    @property
    def now(self) -> datetime:
        """The end of the last day."""
        return START + self.driven * DAY

    def begin(self, *, off_ah: float = 0.0) -> None:
        """Train on vehicles of the chemistry that is known, and put that in service.

        Args:
            off_ah: how far off the labels are.
        """
        rows = old_rows().with_columns(pl.col(LABEL) + off_ah)
        prepared = prepare_table(rows, VIEW, self.settings, source="the old fleet")
        trained = train(prepared, self.settings, Silent())
        version = register(trained, self.settings, out=None, progress=Silent()).version.version
        promote(version, self.settings, force=True, reason="it is the first")

    def drive(  # noqa: PLR0913 - what may go wrong on a day
        self,
        *,
        chemistry: str = "LFP",
        labelled: int = VEHICLES,
        slower: float = 1.0,
        failing: float = 0.0,
        said_ah: float | None = None,
        off_ah: float = 0.0,
    ) -> datetime:
        """Drive a day; the clock stands at its end.

        Args:
            chemistry: of their batteries.
            labelled: vehicles whose labels come the same day.
            slower: how many times as long as the champion the challenger takes.
            failing: share of the questions that the challenger gives no number for.
            said_ah: what the champion answers; None for what its model says.
            off_ah: how far off the challenger's answers are besides.
        """
        rows = fleet(chemistry, vehicles=VEHICLES, cycles=60, seed=2, first=101)
        some = rows.filter(
            pl.col("op_index").is_between(A_DAY * self.driven + 1, A_DAY * (self.driven + 1))
        ).with_columns(
            at=self.now + pl.duration(hours=(pl.col("op_index") - 1) % A_DAY * (24 // A_DAY))
        )
        requests = [new_id() for _ in range(some.height)]
        registry = open_registry(self.settings)
        records = []
        for role in (CHAMPION, CHALLENGER):
            version = registry.find_alias(role)
            if version is None:
                continue
            served = role == CHAMPION
            package = load_model(str(version.version), self.settings).package
            answers = package.predict_batch(matrix(package.view, some)).tolist()
            for number, (row, answer) in enumerate(
                zip(some.iter_rows(named=True), answers, strict=True)
            ):
                told = answer + off_ah
                if served:
                    told = answer if said_ah is None else said_ah
                failed = not served and number < failing * some.height
                records.append(
                    record(
                        row["at"],
                        row,
                        request_id=requests[number],
                        model_name=self.settings.registry.model_name,
                        model_version=str(version.version),
                        package_fingerprint=package.fingerprint,
                        role=role,
                        capacity_ah=told,
                        soh=told / 2.0,
                        latency_ms=2.0 * (1.0 if served else slower),
                        status="failed" if failed else "ok",
                        served=served,
                    )
                )
        self.driven += 1
        self.clock.move_to(self.now)
        labels = [
            Label(row["asset_id"], row["at"], row["capacity_ah"], "bench")
            for row in some.iter_rows(named=True)
            if row["asset_id"] < f"EV-{1101 + labelled}"
        ]
        put(self.settings, records, labels)
        return self.now

    def check(self, progress: Progress | None = None) -> Checked:
        """Have the loop look, a little after the end of the day."""
        self.clock.move_to(self.now + LATER)
        return check(self.settings, progress or Silent())


class Saved:
    """States of a home; each is worked on in copies, in folders of their own.

    The registry goes on to keep artifacts where the home was first.

    Args:
        folder: for all of it.
        retraining: settings besides those of `loop_config`.
    """

    def __init__(self, folder: Path, **retraining: Any) -> None:  # noqa: ANN401 - any setting
        self.folder = folder
        self.config = loop_config(folder / "config.yaml", **retraining)
        self.settings = load_settings(self.config, home=folder / "first")
        self._driven: dict[str, int] = {}

    def save(self, name: str, days: Days) -> None:
        """Remember the home as it is."""
        shutil.copytree(days.settings.home, self.folder / "saved" / name)
        self._driven[name] = days.driven

    def take_course(self, clock: time_machine.Traveller) -> None:
        """Have a retraining take its whole course, and remember the home where it may turn.

        `asked`: labels were asked for, and did not come yet. `retrain`: they came. `tried`: the
        challenger stands in service. `trial`: for a day. `probation`: it is the champion. `good`:
        for two days. `bad`: for one, with answers that no battery can give.
        """
        days = Days(self.settings, clock)
        days.begin()
        self.save("new", days)
        days.drive()
        days.check()
        self.save("asked", days)
        days.drive()
        self.save("retrain", days)
        days.check()
        self.save("tried", days)
        days.drive()
        self.save("trial", days)
        days.check()
        self.save("probation", days)
        with self.days("probation", clock) as again:
            again.drive(said_ah=9.9)
            self.save("bad", again)
        days.drive()
        days.drive()
        self.save("good", days)

    @contextmanager
    def copy(self, name: str) -> Iterator[tuple[Path, datetime]]:
        """A copy of a home, which is removed after, and the end of its last day."""
        home = self.folder / new_id()
        shutil.copytree(self.folder / "saved" / name, home)
        try:
            yield home, START + self._driven[name] * DAY
        finally:
            shutil.rmtree(home)

    @contextmanager
    def days(self, name: str, clock: time_machine.Traveller) -> Iterator[Days]:
        """Go on from what was remembered, in a copy."""
        with self.copy(name) as (home, _):
            settings = load_settings(self.config, home=home)
            yield Days(settings, clock, driven=self._driven[name])
