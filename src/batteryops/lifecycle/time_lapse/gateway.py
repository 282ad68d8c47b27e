"""The vehicles' end of the line: trips go out over HTTP as they end, and labels as they arrive."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

import numpy as np
import polars as pl
import requests
from numpy.typing import NDArray

from batteryops.errors import BatteryOpsError
from batteryops.features.views import get_view
from batteryops.lifecycle.time_lapse.world import VIEW
from batteryops.records.api_keys import ApiKeys
from batteryops.records.ledger import KEY_CREATED, KEY_REVOKED, Ledger
from batteryops.serving.batch_forms import ARROW
from batteryops.serving.labelling import MOST_LABELS
from batteryops.settings import Settings

SINGLES: Final = 1
"""Of each upload so many trips are asked by themselves, the others as a batch."""

_PATIENCE_S: Final = 60.0
_KEY: Final = "time-lapse"
_SCOPES: Final = ("predict", "label", "admin")  # the last: to have the server look at once


class Gateway:
    """Asks the server, over one connection that is kept.

    Args:
        url: of the server.
        secret: an API key that may predict and label.
    """

    def __init__(self, url: str, secret: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy stands between this process and its server
        self._session.headers["Authorization"] = f"Bearer {secret}"
        self._names = get_view(VIEW).names

    @classmethod
    @contextmanager
    def to(cls, url: str, secret: str) -> Iterator[Self]:
        """A gateway that hangs up at the end."""
        gateway = cls(url, secret)
        with gateway._session:
            yield gateway

    def predict(self, trips: pl.DataFrame) -> NDArray[np.float64]:
        """Have trips answered, a few by themselves and the rest as one Arrow batch.

        Args:
            trips: `asset_id` and the features, one upload.

        Returns:
            (n,) capacities as they were answered, Ah.

        Raises:
            BatteryOpsError: an answer that is none.
        """
        rows = trips.select("asset_id", *self._names).rename({"asset_id": "vehicle_id"})
        said = [
            self._post("/predict", json=row).json()["capacity_ah"]
            for row in rows.head(SINGLES).iter_rows(named=True)
        ]
        batch = rows.slice(SINGLES)
        if batch.is_empty():
            return np.array(said, dtype=np.float64)
        packed = io.BytesIO()
        batch.write_ipc_stream(packed)
        answer = self._post(
            "/predict/batch", data=packed.getvalue(), headers={"Content-Type": ARROW}
        )
        told = pl.read_ipc_stream(answer.content)["capacity_ah"]
        capacities = np.concatenate([np.array(said, dtype=np.float64), told.to_numpy()])
        if not np.isfinite(capacities).all():
            raise BatteryOpsError(f"the server gave no number for some of {rows.height} trips")
        return capacities

    def label(self, labels: pl.DataFrame) -> None:
        """Send measured capacities.

        Args:
            labels: `asset_id`, `measured_at`, `capacity_ah`.

        Raises:
            BatteryOpsError: they are refused.
        """
        for part in labels.iter_slices(MOST_LABELS):
            sent = [
                {
                    "vehicle_id": row["asset_id"],
                    "measured_at": row["measured_at"].isoformat(),
                    "capacity_ah": row["capacity_ah"],
                    "source": "workshop",
                }
                for row in part.iter_rows(named=True)
            ]
            self._post("/labels", json={"labels": sent})

    def _post(self, path: str, **content: Any) -> requests.Response:  # noqa: ANN401 - as requests has it
        try:
            response = self._session.post(f"{self.url}{path}", timeout=_PATIENCE_S, **content)
        except requests.RequestException as error:
            raise BatteryOpsError(f"the server on {self.url} does not answer: {error}") from error
        if response.status_code != requests.codes.ok:
            raise BatteryOpsError(
                f"{path} was answered with {response.status_code}: {response.text[:500]}"
            )
        return response


@contextmanager
def own_key(settings: Settings) -> Iterator[str]:
    """An API key for the vehicles and the workshops, on the ledger as any other."""
    details = {"scopes": list(_SCOPES)}
    with Ledger(settings.ledger_url) as ledger, ApiKeys(settings.predictions_url) as keys:
        key, secret = keys.create(_KEY, list(_SCOPES))
        ledger.append(KEY_CREATED, key.name, {"key_id": key.key_id, **details})
        try:
            yield secret
        finally:
            keys.revoke(key.key_id)
            ledger.append(KEY_REVOKED, key.name, {"key_id": key.key_id, **details})
