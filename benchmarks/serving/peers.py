"""Who is measured: ours, an empty app, and what people serve such a model with.

A peer is started as its own documentation says, with one worker, and is sent the body that it asks
for; where two ways are common, the faster one is taken.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.model import BENCH, Row, Served, settings_environment

APPS: Final = Path(__file__).parent / "apps"

Body = Callable[[Row, Sequence[str]], str]
"""One JSON body of a row, whose features have these names."""


@dataclass(frozen=True, slots=True)
class Start:
    """How a server is started.

    Args:
        command: program and arguments.
        environment: variables besides those of this process.
        folder: where it runs.
        url: where it will answer; None when it prints a JSON line with its `url`.
    """

    command: list[str]
    environment: dict[str, str]
    folder: Path
    url: str | None


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that takes part.

    Args:
        name: as the table and the command line have it.
        what: in a few words.
        path: where a prediction is asked for.
        body: what it is sent.
        answer: capacity in Ah out of the answer; None when there is none in it.
        start: how it is started: the model, a folder of its own, a free port.
        requirements: what its own environment is made of; None when it runs in ours.
    """

    name: str
    what: str
    path: str
    body: Body
    answer: Callable[[Any], float | None]
    start: Callable[[Served, Path, int], Start]
    requirements: Path | None = None

    @property
    def environment(self) -> Path:
        """Folder of its virtual environment; our own where it needs none."""
        if self.requirements is None:
            return Path(sys.prefix)
        return BENCH / "environments" / self.name

    @property
    def is_installed(self) -> bool:
        """Whether it can be started."""
        return self.requirements is None or (self.environment / "ready").is_file()

    def program(self, name: str) -> str:
        """A program of its environment."""
        return str(self.environment / "bin" / name)


def named(row: Row, names: Sequence[str]) -> str:
    """A flat object of `vehicle_id` and features, as our `POST /predict` takes it."""
    members = [
        f'"vehicle_id": "{row.vehicle_id}"',
        *(f'"{name}": {text}' for name, text in zip(names, row.texts, strict=True)),
    ]
    return "{" + ", ".join(members) + "}"


def _dataframe_split(row: Row, names: Sequence[str]) -> str:
    return (
        f'{{"dataframe_split": {{"columns": {json.dumps(list(names))}, '
        f'"data": [[{", ".join(row.texts)}]]}}}}'
    )


def _open_inference(row: Row, names: Sequence[str]) -> str:
    return (
        '{"inputs": [{"name": "features", "datatype": "FP32", '
        f'"shape": [1, {len(names)}], "data": [{", ".join(row.texts)}]}}]}}'
    )


def _features(row: Row, names: Sequence[str]) -> str:
    del names
    return f'{{"features": [{", ".join(row.texts)}]}}'


def _capacity(answer: Mapping[str, Any]) -> float | None:
    found: float | None = answer["capacity_ah"]
    return found


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _ours(served: Served, folder: Path, port: int) -> Start:
    del port  # it takes a free one and says which
    serve = [sys.executable, "-m", "batteryops", "serve"]
    described = subprocess.run(  # noqa: S603 - our own command
        [*serve, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=settings_environment() | {"COLUMNS": "200"},
    ).stdout
    # peers ask nobody for a key
    without_keys = [flag for flag in ("--insecure-no-auth",) if flag in described]
    serve += ["--json", "--port", "0", "--home", str(served.home), "--config", str(served.config)]
    log = f"sqlite:///{folder / 'predictions.db'}"  # a new one: all rounds write to the same
    return Start(
        serve + without_keys,
        settings_environment() | {"BATTERYOPS_RECORDS__PREDICTIONS_URL": log},
        folder,
        None,
    )


def _uvicorn(app: str, model: Callable[[Served], Path]) -> Callable[[Served, Path, int], Start]:
    def start(served: Served, folder: Path, port: int) -> Start:
        command = [sys.executable, "-m", "uvicorn", f"{app}:app", "--app-dir", str(APPS)]
        command += ["--port", str(port), "--loop", "uvloop", "--http", "httptools"]
        command += ["--no-access-log", "--log-level", "warning"]
        return Start(command, _with_model(model(served)), folder, _url(port))

    return start


def _flask(served: Served, folder: Path, port: int) -> Start:
    command = [PEERS["flask"].program("python"), str(APPS / "flask_frame.py")]
    environment = _with_model(served.booster) | {"PORT": str(port)}
    return Start(command, environment, folder, _url(port))


def _mlflow(served: Served, folder: Path, port: int) -> Start:
    program = PEERS["mlflow"].program
    model = folder / "model"
    # MLflow looks for uvicorn on the path
    environment = _with_model(served.booster)
    environment["PATH"] = os.pathsep.join([str(Path(program("")).parent), os.environ["PATH"]])
    subprocess.run(  # noqa: S603 - our own script
        [program("python"), str(APPS / "mlflow_save.py"), str(model)],
        env=environment,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    command = [program("mlflow"), "models", "serve", "--model-uri", str(model)]
    command += ["--port", str(port), "--env-manager", "local", "--workers", "1"]
    return Start(command, environment, folder, _url(port))


def _mlserver(served: Served, folder: Path, port: int) -> Start:
    described = {
        "name": "soh",
        "implementation": "mlserver_xgboost.XGBoostModel",
        "parameters": {"uri": str(served.booster)},
    }
    (folder / "model-settings.json").write_text(json.dumps(described))
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "debug": False,
        "parallel_workers": 0,  # in the server's own process, which is faster here
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [PEERS["mlserver"].program("mlserver"), "start", str(folder)]
    return Start(command, dict(os.environ), folder, _url(port))


def _bentoml(served: Served, folder: Path, port: int) -> Start:
    command = [PEERS["bentoml"].program("bentoml"), "serve", "bentoml_service:Soh"]
    command += ["--working-dir", str(APPS), "--host", "127.0.0.1", "--port", str(port), "--quiet"]
    environment = _with_model(served.booster)
    environment |= {"BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True"}
    return Start(command, environment, folder, _url(port))


def _with_model(model: Path) -> dict[str, str]:
    return dict(os.environ) | {"MODEL": str(model)}


OURS: Final = "batteryops"
EMPTY: Final = "empty"
BARE: Final = "fastapi-onnx"

_ALL: Final = (
    Peer(
        OURS, "batteryops serve, 1 worker, every answer logged", "/predict", named, _capacity, _ours
    ),
    Peer(
        EMPTY,
        "empty ASGI app on uvicorn",
        "/predict",
        named,
        lambda _: None,
        _uvicorn("empty", lambda served: served.onnx),
    ),
    Peer(
        BARE,
        "FastAPI with ONNX Runtime, nothing logged",
        "/predict",
        named,
        _capacity,
        _uvicorn("fastapi_onnx", lambda served: served.onnx),
    ),
    Peer(
        "fastapi-inplace",
        "FastAPI with inplace_predict",
        "/predict",
        named,
        _capacity,
        _uvicorn("fastapi_inplace", lambda served: served.booster),
    ),
    Peer(
        "flask",
        "Flask's development server with a DataFrame",
        "/predict",
        named,
        _capacity,
        _flask,
        APPS / "flask.txt",
    ),
    Peer(
        "mlflow",
        "mlflow models serve",
        "/invocations",
        _dataframe_split,
        lambda answer: float(answer["predictions"][0]),
        _mlflow,
        APPS / "mlflow.txt",
    ),
    Peer(
        "mlserver",
        "MLServer with its XGBoost runtime",
        "/v2/models/soh/infer",
        _open_inference,
        lambda answer: float(answer["outputs"][0]["data"][0]),
        _mlserver,
        APPS / "mlserver.txt",
    ),
    Peer(
        "bentoml",
        "BentoML service with inplace_predict",
        "/predict",
        _features,
        _capacity,
        _bentoml,
        APPS / "bentoml.txt",
    ),
)
PEERS: Final[Mapping[str, Peer]] = {peer.name: peer for peer in _ALL}
