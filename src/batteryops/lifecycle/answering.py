"""Put a model behind HTTP."""

from collections.abc import Callable

from batteryops.lifecycle.loading import load_model
from batteryops.records.predictions import PredictionLog
from batteryops.serving.app import ServedModel, create_app
from batteryops.serving.server import run
from batteryops.settings import Settings


def serve_model(
    model: str,
    settings: Settings,
    *,
    host: str,
    port: int,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve one model until the process is told to stop.

    Args:
        model: a package folder, a version number or an alias.
        settings: where the registry and the prediction log are.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        on_ready: told the URL; when None it is printed as one line of JSON.

    Raises:
        RegistryError, PackageError: the model cannot be had.
        RecordsError: the prediction log is out of reach.
        SettingsError: the address cannot be listened on.
    """
    loaded = load_model(model, settings)
    with PredictionLog(settings.predictions_url) as log:
        app = create_app(ServedModel(loaded.package, loaded.version, loaded.role), log, settings)
        run(app, host, port, on_ready)
