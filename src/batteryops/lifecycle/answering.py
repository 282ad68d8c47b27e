"""Put models behind HTTP: what the registry says, or one package, with as many workers as asked."""

import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Final

from batteryops.errors import PackageError, RecordsError, RegistryError
from batteryops.lifecycle.loading import load_model, open_registry
from batteryops.records.api_keys import ApiKeys
from batteryops.registry.versions import CHAMPION
from batteryops.serving.deployment import Deployment, deploy_package, read_deployment
from batteryops.serving.logs import log_as_json
from batteryops.serving.server import listen, url_of
from batteryops.serving.supervisor import Look, Supervisor
from batteryops.serving.watch import RegistryWatcher
from batteryops.settings import Settings

logger = logging.getLogger(__name__)

_PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def serve_model(  # noqa: PLR0913 - what, where, for whom
    model: str,
    settings: Settings,
    *,
    host: str,
    port: int,
    workers: int = 1,
    insecure: bool = False,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until the process is told to stop.

    Args:
        model: `champion` serves what the registry says and follows it; a package folder, a version
            number or another alias is served as it is, whatever the registry says later.
        settings: where the registry and the prediction log are.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        workers: processes.
        insecure: let everybody in, without API keys.
        on_ready: told the URL; when None it is printed as one line of JSON.

    Raises:
        RegistryError, PackageError: the model cannot be had.
        RecordsError: the prediction log is out of reach.
        SettingsError: the address cannot be listened on.
    """
    log_as_json()
    _be_impatient()
    _look_at_doors(settings, insecure=insecure)
    with listen(host, port) as listener:
        deployment, look = _to_serve(model, settings)
        supervisor = Supervisor(
            settings,
            listener,
            workers=workers,
            insecure=insecure,
            deployment=deployment,
            look=look,
        )
        supervisor.run(lambda: (on_ready or _print_url)(url_of(host, listener)))


def _to_serve(model: str, settings: Settings) -> tuple[Deployment, Look | None]:
    if model.lstrip("@") != CHAMPION:
        loaded = load_model(model, settings)
        return deploy_package(loaded.package, loaded.version, loaded.role), None
    watcher = RegistryWatcher(lambda: open_registry(settings), settings)
    known = read_deployment(settings.home / "serving")
    try:
        return watcher.look(None), watcher.look
    except (RegistryError, PackageError) as error:
        if known is None:
            raise
        version = known.champion.version
        logger.warning("serving what was served last, version %s: %s", version, error)
        return watcher.look(known), watcher.look


def _be_impatient() -> None:
    """Have MLflow's client give up within seconds, where the user does not say otherwise.

    By itself it tries eight times, with minutes between: so long nobody would be told that the
    registry does not answer, nor could have it looked at again.
    """
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)


def _look_at_doors(settings: Settings, *, insecure: bool) -> None:
    """Say that everybody is let in, or that nobody can be."""
    if insecure:
        logger.warning(
            "every request is answered, whoever sends it (--insecure-no-auth): anybody who reaches "
            "this address can read predictions and send labels"
        )
        return
    with ApiKeys(settings.predictions_url) as keys:
        if not keys.snapshot():
            raise RecordsError(
                "there is no valid API key, so nobody could ask; make one with `batteryops keys "
                "create NAME --scope predict`, or let everybody in with --insecure-no-auth"
            )


def _print_url(url: str) -> None:
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()
