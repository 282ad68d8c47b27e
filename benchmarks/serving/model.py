"""The one model that everybody serves, and the requests that everybody is sent.

The model is trained through the command line on a simulated fleet, with the parameters of the
source system (300 trees, depth 9); our server answers its package, the peers its booster or its
ONNX twin. The requests are the fleet's rows with every value moved a little, so that they lie where
requests lie, and no two are alike.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.features.views import FeatureView, get_view
from batteryops.lifecycle.loading import load_model
from batteryops.models.manifest import FORMAT_VERSION
from batteryops.models.package import ModelPackage
from batteryops.settings import PREFIX, load_settings

ROOT: Final = Path(__file__).resolve().parents[2]
BENCH: Final = ROOT / ".bench"
"""Everything that the benchmark makes: homes, environments, bodies."""

VIEW: Final = "discharge_summary"
VEHICLES: Final = 60
CYCLES: Final = 150
TREES: Final = 300
DEPTH: Final = 9
POOL: Final = 20_000
"""Different bodies; each is sent again only with another number in it, see `TURN`."""

TURN: Final = "@@@@"
"""Stands in a body for four further decimals: the generator writes there in which turn through
the pool it is, so that no row comes twice in 200 million requests."""

SPREAD: Final = 0.005
"""Standard deviation by which values are moved, as a share of each feature's own."""

_QUICK_PROTOCOLS: Final = {  # how good the model is does not matter here, how large it is does
    "BATTERYOPS_EVALUATION__MAX_FOLDS": "2",
    "BATTERYOPS_EVALUATION__CALIBRATION_FOLDS": "2",
    "BATTERYOPS_EVALUATION__BOOTSTRAP_RESAMPLES": "10",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One request: who asks, and the features as they stand in a body.

    Args:
        vehicle_id: a simulated vehicle.
        texts: the features' numbers in the order of the view; one of them holds `TURN`.
    """

    vehicle_id: str
    texts: tuple[str, ...]

    def values(self, digits: str) -> list[float]:
        """The features once the generator has filled in its digits."""
        return [float(text.replace(TURN, digits)) for text in self.texts]


@dataclass(frozen=True, slots=True)
class Served:
    """The model of the benchmark.

    Args:
        home: our server's home; the model is its champion.
        package: the model package.
        config: the configuration that our server is started with.
    """

    home: Path
    package: ModelPackage
    config: Path

    @property
    def names(self) -> tuple[str, ...]:
        """Features in the model's order."""
        return self.package.view.names

    @property
    def booster(self) -> Path:
        """The booster's file, for peers that serve it."""
        return self.package.folder / "model.ubj"

    @property
    def onnx(self) -> Path:
        """The twin's file, for peers that serve that."""
        return self.package.folder / "model.onnx"


def settings_environment() -> dict[str, str]:
    """This process's environment without settings of ours: the benchmark's own are in force."""
    return {name: text for name, text in os.environ.items() if not name.upper().startswith(PREFIX)}


def prepared(root: Path = BENCH) -> Served:
    """The model, trained and promoted on the first call, found again later.

    Raises:
        RuntimeError: when a command of ours fails.
    """
    config = ROOT / "config" / "production.yaml"
    home = root / f"home-{_recipe(config)}"
    if not (home / "ready").is_file():
        shutil.rmtree(home, ignore_errors=True)
        environment = settings_environment() | _QUICK_PROTOCOLS
        environment["BATTERYOPS_HOME"] = str(home)
        environment["BATTERYOPS_TRAINING__PARAMETERS"] = json.dumps(
            {
                **load_settings(config, home=home).training.parameters,
                "n_estimators": TREES,
                "max_depth": DEPTH,
            }
        )
        _ours(environment, "data", "simulate", "--vehicles", str(VEHICLES), "--cycles", str(CYCLES))
        # leaves with 1 also when a gate says no, which the simulated fleet is not made for
        trained = _ours(
            environment, "train", "--source", "lake", "--view", VIEW, "--json", gated=True
        )
        why = "a model for the benchmark"
        version = str(json.loads(trained)["version"])
        _ours(environment, "promote", version, "--force", "--reason", why)
        table = home / "rows.parquet"
        _ours(environment, "features", "--source", "lake", "--view", VIEW, "--out", str(table))
        (home / "ready").touch()
    package = load_model("champion", load_settings(config, home=home)).package
    return Served(home, package, config)


def _recipe(config: Path) -> str:
    """Changes when the home must be made anew."""
    settings = load_settings(config).model_dump(include={"training", "profiles", "assets"})
    parts = [settings, FORMAT_VERSION, get_view(VIEW).schema_hash]
    parts += [VEHICLES, CYCLES, TREES, DEPTH]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _ours(environment: dict[str, str], *words: str, gated: bool = False) -> str:
    """Run a command of ours; what it printed. One that is gated may leave with 1 and an answer."""
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "batteryops", *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    refused = gated and done.returncode == 1 and done.stdout
    if done.returncode and not refused:
        raise RuntimeError(f"batteryops {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def rows(served: Served, count: int = POOL, seed: int = 42) -> list[Row]:
    """Requests: rows of the fleet, moved a little and kept within the view's ranges.

    Args:
        served: the model, whose training table is drawn from.
        count: how many.
        seed: of the drawing.
    """
    table = pl.read_parquet(served.home / "rows.parquet")
    view = served.package.view
    random = np.random.default_rng(seed)
    drawn = random.integers(table.height, size=count)
    values = moved(table.select(view.names).to_numpy()[drawn], view, random)
    vehicles = table["asset_id"].gather(drawn).to_list()
    varied = view.names.index("temperature_C_mean")
    found = []
    for vehicle, row in zip(vehicles, values.tolist(), strict=True):
        texts = [repr(value) for value in row]
        # one decimal, towards zero, and four that the generator writes
        texts[varied] = f"{int(10 * row[varied]) / 10:.1f}{TURN}"
        found.append(Row(vehicle, tuple(texts)))
    return found


def moved(
    values: NDArray[np.float64], view: FeatureView, random: np.random.Generator
) -> NDArray[np.float64]:
    """Every value moved by a little of its feature's spread, rounded as a sensor's would be."""
    noise = random.normal(0.0, SPREAD, values.shape) * np.nanstd(values, axis=0)
    low, high = ([getattr(f, end) for f in view.features] for end in ("low", "high"))
    return np.asarray(np.clip(np.round(values + noise, 4), low, high), dtype=np.float64)


def matrix(asked: Sequence[Row], digits: str = "0000") -> NDArray[np.float32]:
    """The rows as a model takes them, (n, k)."""
    return np.array([row.values(digits) for row in asked], dtype=np.float32)
