"""What the server's routes share: who answers, the doors, the log, the counters."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from batteryops.errors import BatteryOpsError, RecordsError
from batteryops.records.group_commit import GroupCommit
from batteryops.records.predictions import PredictionLog
from batteryops.serving.assets import Assets
from batteryops.serving.deployment import DOCUMENT, Deployment, load_lineup, read_deployment
from batteryops.serving.doors import Doors
from batteryops.serving.explainer import Explainer
from batteryops.serving.lineup import Lineup
from batteryops.serving.metrics import Metrics
from batteryops.settings import Settings

logger = logging.getLogger(__name__)

_DRAIN_S: Final = 10.0


class Service:
    """One worker's state, from its start to its end.

    Args:
        deployment: what is served at first.
        folder: where the deployment document is; None where nothing is followed.
        log: answers are looked up here.
        writer: answers are put on record here.
        doors: who is let in.
        settings: everything else.
        refresh: asks whoever watches the registry to look now; None where nobody does.

    Raises:
        PackageError: a package cannot be loaded.
    """

    def __init__(  # noqa: PLR0913 - one argument per neighbour
        self,
        deployment: Deployment,
        *,
        folder: Path | None,
        log: PredictionLog,
        writer: GroupCommit,
        doors: Doors,
        metrics: Metrics,
        settings: Settings,
        refresh: Callable[[], None] | None = None,
    ) -> None:
        self.deployment = deployment
        self.settings: Final = settings
        self.log: Final = log
        self.writer: Final = writer
        self.doors: Final = doors
        self.metrics: Final = metrics
        self.refresh: Final = refresh
        self.assets: Final = Assets(settings)
        self.explainer: Final = Explainer(log, metrics, settings.serving.explain_share)
        self.withhold: Final = settings.serving.out_of_domain == "withhold"
        self.problem: str | None = None
        """Why the newest deployment is not in service; None when it is."""
        self.looked_at = deployment.checked_at
        """When the registry was asked for the newest deployment that was seen, served or not."""
        self._document = None if folder is None else folder / DOCUMENT
        self._seen = self._stamp()
        self._changed: list[Callable[[Lineup], None]] = []
        self._end_first: list[Callable[[], None]] = []
        self.lineup = load_lineup(deployment, settings.serving.cache)

    def when_changed(self, tell: Callable[[Lineup], None]) -> None:
        """Have a neighbour told of another line-up, and of this one at once."""
        self._changed.append(tell)
        tell(self.lineup)

    def has_news(self) -> bool:
        """Whether the deployment document was written since it was read."""
        return self._document is not None and self._stamp() != self._seen

    def read_news(self) -> tuple[Deployment, Lineup] | None:
        """Load what the document says now; for a thread, as it takes a while.

        None when nothing can be changed: the line-up in service stays, and `problem` says why.
        """
        assert self._document is not None  # noqa: S101 - there were news
        stamp = self._stamp()
        deployment: Deployment | None = None
        try:
            deployment = read_deployment(self._document.parent)
            if deployment is None:  # removed by hand: what is served goes on
                self._seen = stamp
                return None
            lineup = load_lineup(deployment, self.settings.serving.cache, self.lineup)
        except Exception as error:
            if self.problem != str(error):
                expected = isinstance(error, BatteryOpsError)
                logger.error(  # noqa: TRY400 - the trace of an expected one says no more
                    "the new deployment cannot be served: %s",
                    error,
                    exc_info=None if expected else error,
                )
            self.problem, self._seen = str(error), stamp
            if deployment is not None:
                self.looked_at = deployment.checked_at
            return None
        self._seen = stamp
        return deployment, lineup

    def change(self, deployment: Deployment, lineup: Lineup) -> None:
        """Serve another deployment from the next request on; on the event loop's thread."""
        before = self.deployment
        self.deployment, self.problem = deployment, None
        self.looked_at = deployment.checked_at
        if deployment.same_service(before):
            return
        self.lineup = lineup
        for tell in self._changed:
            tell(lineup)
        logger.info(
            "version %s answers as %s, %s",
            lineup.champion.version,
            lineup.champion.role,
            "alone"
            if lineup.challenger is None
            else f"version {lineup.challenger.version} beside it ({lineup.routing.mode})",
        )

    def observe(self) -> None:
        """Note how long the log's queue is, and whether the registry answers, for `/metrics`."""
        self.metrics.observe()
        self.metrics.queue_rows.set(self.writer.waiting)
        self.metrics.log_lag.set(self.writer.oldest_wait_s)
        self.metrics.registry_reachable.set(self.deployment.registry.reachable)

    def failures(self) -> dict[str, str]:
        """What keeps predictions from being answered, by part."""
        failures = {}
        for model in self.lineup.models():
            if (wrong := model.self_test()) is not None:
                failures[f"model_{model.role}"] = wrong
        try:
            self.log.ping()
        except RecordsError as error:
            failures["prediction_log"] = str(error)
        return failures

    def remarks(self) -> dict[str, str]:
        """What an operator should know though predictions are answered, by part."""
        remarks = {}
        registry = self.deployment.registry
        if registry.followed and not registry.reachable:
            remarks["registry"] = (
                f"does not answer since {registry.since:%Y-%m-%d %H:%M:%S} UTC: "
                f"{registry.problem}; what was known is served on"
            )
        if self.problem is not None:
            remarks["deployment"] = f"cannot be served, the one before it is: {self.problem}"
        if self.doors.is_open:
            remarks["doors"] = "open: everybody is let in (--insecure-no-auth)"
        return remarks

    def end_first(self, close: Callable[[], None]) -> None:
        """Have something ended before the stores are that it uses."""
        self._end_first.append(close)

    def close(self) -> None:
        """Write what waits for the log, and let go."""
        self.doors.close()
        for close in self._end_first:
            close()
        unwritten = self.writer.close(_DRAIN_S)
        if unwritten:
            logger.error("%d predictions could not be put on record", unwritten)
        self.explainer.close()
        self.log.close()

    def _stamp(self) -> tuple[int, int] | None:
        if self._document is None:
            return None
        try:
            found = os.stat(self._document)  # noqa: PTH116 - five times a second
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino
