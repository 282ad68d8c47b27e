"""Explains predictions in one thread of its own: those that wait for it, and a share of all."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple
from weakref import WeakSet
from zlib import crc32

import numpy as np

from batteryops.errors import PackageError, RecordsError
from batteryops.models.explain import contributions, is_explainable
from batteryops.models.package import ModelPackage
from batteryops.records.predictions import PredictionLog
from batteryops.serving.live_model import Values
from batteryops.serving.metrics import Metrics
from batteryops.serving.problems import EXPLAINER_BUSY, ProblemError

logger = logging.getLogger(__name__)

_MOST_WAITING: Final = 256  # requests; one takes a millisecond or a few
_MOST_SAMPLES: Final = 4096
_AT_ONCE: Final = 64  # samples, between which requests have their turn


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a prediction comes from.

    Args:
        base_ah: what the model says on average, Ah.
        contributions: what each feature adds to that, Ah; the largest first, whatever its sign.
    """

    base_ah: float
    contributions: Mapping[str, float]


class _Sample(NamedTuple):
    prediction_id: str
    package: ModelPackage
    values: Values
    capacity_ah: float


class Explainer:
    """Explains predictions, for requests and for the log, in one thread.

    One thread, so that explanations, which take a hundred times as long as predictions, leave the
    other cores to those.

    Args:
        log: where contributions of samples go.
        metrics: counts samples.
        share: of single predictions that are explained after their answer went out.
    """

    def __init__(self, log: PredictionLog, metrics: Metrics, share: float) -> None:
        self._log = log
        self._metrics = metrics
        self._below = round(share * 2**32)
        self._thread = ThreadPoolExecutor(1, "explainer")
        self._requests = 0
        self._samples: deque[_Sample] = deque()
        self._gate = threading.Lock()  # of the two below
        self._working = False
        self._closing = False
        self._reported: WeakSet[ModelPackage] = WeakSet()

    async def explain(
        self, package: ModelPackage, values: Values, answer_ah: float | None = None
    ) -> Explanation:
        """Explain one prediction.

        Args:
            package: whose prediction it is.
            values: features in the order of its view.
            answer_ah: what was answered; the model's own when None.

        Raises:
            PackageError: the model cannot be explained.
            ProblemError: too many wait.
        """
        if self._requests >= _MOST_WAITING:
            raise ProblemError(
                EXPLAINER_BUSY,
                f"{self._requests} explanations are under way, and at most {_MOST_WAITING} may "
                "be; ask again in a second, or ask for the prediction alone",
                headers={"Retry-After": "1"},
            )
        self._requests += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, explain, package, values, answer_ah
            )
        finally:
            self._requests -= 1

    def wants(self, prediction_id: str) -> bool:
        """Whether a prediction is in the share; the same for an identifier everywhere, always."""
        return crc32(prediction_id.encode()) < self._below

    def offer(
        self, prediction_id: str, package: ModelPackage, values: Values, capacity_ah: float
    ) -> None:
        """Have a prediction that is on record explained there, some time; returns at once.

        It is dropped, and counted, where too many wait. Models that cannot be explained are passed
        over.

        Args:
            prediction_id: of the record.
            package: whose prediction it is.
            values: features in the order of its view.
            capacity_ah: the prediction.
        """
        if not is_explainable(package):
            return
        with self._gate:
            if self._closing or len(self._samples) >= _MOST_SAMPLES:
                self._metrics.unexplained.inc()
                return
            self._samples.append(_Sample(prediction_id, package, values, capacity_ah))
            if not self._working:
                self._working = True
                self._thread.submit(self._work)

    def close(self) -> None:
        """Explain what waits, take nothing more. Calling it twice does no harm."""
        with self._gate:
            self._closing = True
        self._thread.shutdown()

    def _work(self) -> None:
        """Explain some samples, then stand in line again behind the requests."""
        some: list[_Sample] = []
        while True:
            while self._samples and len(some) < _AT_ONCE:
                some.append(self._samples.popleft())
            try:
                self._put_on_record(some)
            except Exception:  # the next ones are to have their turn
                logger.exception("%d predictions could not be explained", len(some))
                self._metrics.unexplained.inc(len(some))
            some.clear()
            with self._gate:
                if not self._samples:
                    self._working = False
                    return
                if not self._closing:
                    self._thread.submit(self._work)
                    return

    def _put_on_record(self, samples: list[_Sample]) -> None:
        explained = {}
        for sample in samples:
            try:
                told = explain(sample.package, sample.values, sample.capacity_ah)
            except PackageError as error:
                if sample.package not in self._reported:  # once is enough
                    self._reported.add(sample.package)
                    logger.warning("%s is not explained: %s", sample.prediction_id, error)
            else:
                explained[sample.prediction_id] = (told.contributions, told.base_ah)
        try:
            self._log.add_explanations(explained)
        except RecordsError as error:
            logger.warning("%d explanations could not be kept: %s", len(explained), error)
            self._metrics.unexplained.inc(len(samples))
        else:
            self._metrics.explained.inc(len(explained))
            self._metrics.unexplained.inc(len(samples) - len(explained))


def explain(package: ModelPackage, values: Values, answer_ah: float | None = None) -> Explanation:
    """Explain one prediction, here and now; as `Explainer.explain`."""
    row = np.array([values], dtype=np.float32)  # None becomes NaN
    added, base = contributions(package, row, None if answer_ah is None else [answer_ah])
    pairs = zip(package.view.names, added[0].tolist(), strict=True)
    by_size = sorted(pairs, key=lambda pair: -abs(pair[1]))
    return Explanation(float(base[0]), dict(by_size))
