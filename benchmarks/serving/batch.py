"""100,000 rows over Arrow, against XGBoost in the same process as the rows."""

import io
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np
import polars as pl
import xgboost as xgb
from benchmarks.serving.model import ROOT, Row, Served, matrix, settings_environment
from benchmarks.serving.process import CLOSE_AH, NotServingError, Running

ROWS: Final = 100_000
THREADS: Final = 2
PATH: Final = "/predict/batch"
MEDIA_TYPE: Final = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True, slots=True)
class Batch:
    """How fast a large batch is answered.

    Args:
        rows: in the batch.
        ours_s: from sending the request to having read the answer, over HTTP; median.
        in_process_s: `inplace_predict` on the same rows as float32; median.
        share: rows a second over HTTP, by those in the process; median over rounds.
    """

    rows: int
    ours_s: float
    in_process_s: float
    share: float


def measure_batch(
    running: Running, served: Served, asked: Sequence[Row], rounds: int
) -> Batch | None:
    """Both in turns; None when the server has no batches.

    Raises:
        NotServingError: when a batch is refused, or answered otherwise than the model does.
    """
    pool = matrix(asked)
    booster = served.package.booster
    ours, plain = [], []
    for turn in range(rounds + 1):  # the first one warms both up
        rows = np.tile(pool, (-(-ROWS // len(pool)), 1))[:ROWS].copy()
        # no row twice, neither in a batch nor between batches
        rows[:, 2] += np.arange(ROWS, dtype=np.float32) * 1e-6 + turn * 1e-3
        vehicles = [asked[index % len(asked)].vehicle_id for index in range(ROWS)]
        body = _stream(served.names, vehicles, rows)
        started = time.perf_counter()
        answered = _ask(f"http://{running.host}:{running.port}{PATH}", body)
        taken_s = time.perf_counter() - started
        if answered is None:
            return None
        _check(answered, booster, rows)
        ours.append(taken_s)
        plain.append(_in_process(served, rows))
    return Batch(
        ROWS,
        median(ours[1:]),
        median(plain[1:]),
        median(there / here for there, here in zip(plain[1:], ours[1:], strict=True)),
    )


def _stream(names: Sequence[str], vehicles: Sequence[str], rows: np.ndarray) -> bytes:
    columns = {"vehicle_id": vehicles} | {
        name: rows[:, column].astype(np.float64) for column, name in enumerate(names)
    }
    written = io.BytesIO()
    pl.DataFrame(columns).write_ipc_stream(written)
    return written.getvalue()


def _ask(url: str, body: bytes) -> pl.DataFrame | None:
    headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - our own server
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=120.0) as response:
            return pl.read_ipc_stream(io.BytesIO(response.read()))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise NotServingError(f"{PATH}: {error.code} {error.read()[:500]!r}") from error
    except OSError as error:  # a server that refuses a large body may hang up while it is sent
        raise NotServingError(f"{PATH}: {error}") from error


def _check(answered: pl.DataFrame, booster: xgb.Booster, rows: np.ndarray) -> None:
    """Every row is answered, and those within the domain as the booster does."""
    expected = booster.inplace_predict(rows, validate_features=False)
    given = answered["capacity_ah"].cast(pl.Float64).to_numpy()
    if len(given) != len(rows):
        raise NotServingError(f"{len(given)} answers to {len(rows)} rows")
    off = np.nanmax(np.abs(given - expected), initial=0.0)
    if off > CLOSE_AH or np.isnan(given).mean() > 0.1:
        raise NotServingError(f"batch answers lie up to {off} Ah from the model's, or are absent")


def _in_process(served: Served, rows: np.ndarray) -> float:
    """Seconds of one `inplace_predict` in a process that does nothing else."""
    code = (
        "import io, sys, time, numpy as np, xgboost as xgb\n"
        "rows = np.load(io.BytesIO(sys.stdin.buffer.read()))\n"
        "booster = xgb.Booster(model_file=sys.argv[1])\n"
        f"booster.set_param({{'nthread': {THREADS}}})\n"
        "def once():\n"
        "    started = time.perf_counter()\n"
        "    booster.inplace_predict(rows, validate_features=False)\n"
        "    return time.perf_counter() - started\n"
        "once()\n"
        "print(once())\n"
    )
    held = io.BytesIO()
    np.save(held, rows)
    environment = settings_environment()
    environment.pop("OMP_NUM_THREADS", None)  # its threads are given above
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code, str(served.booster)],
        input=held.getvalue(),
        capture_output=True,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    return float(done.stdout)
