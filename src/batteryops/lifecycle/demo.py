"""The main job end to end: raw cycles to a served, gated model, and one page that shows it."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from batteryops.errors import BatteryOpsError, GateError
from batteryops.features.views import get_view
from batteryops.lifecycle.preparation import Ingested, Prepared, ingest, prepare
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.registration import Registered, provenance, register
from batteryops.lifecycle.report import DoneStep, Page, ServedAnswer, render
from batteryops.lifecycle.serving_process import READY_WITHIN_S, server_process
from batteryops.lifecycle.sources import PUBLISHED, source_note
from batteryops.lifecycle.training import train
from batteryops.records.api_keys import ApiKeys
from batteryops.records.identifiers import new_id
from batteryops.records.ledger import KEY_CREATED, KEY_REVOKED, Ledger
from batteryops.records.predictions import PredictionLog
from batteryops.schema import LABEL
from batteryops.settings import Settings


@dataclass(frozen=True, slots=True)
class Shown:
    """What the demo did, and where the page is."""

    source: str
    steps: tuple[DoneStep, ...]
    report: Path
    home: Path
    registered: Registered
    answer: ServedAnswer

    @property
    def rows(self) -> list[list[object]]:
        """One row per step, for a table."""
        return [[step.name, step.result, round(step.seconds, 1)] for step in self.steps]

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        trained = self.registered.trained
        return {
            "source": self.source,
            "steps": [
                {"name": step.name, "result": step.result, "seconds": step.seconds}
                for step in self.steps
            ],
            "report": str(self.report),
            "home": str(self.home),
            "version": self.registered.version.version,
            "gates_passed": trained.verdict.passed,
            "mae_ah": {name: found.metrics.mae_ah for name, found in trained.results.items()},
            "answer": dict(self.answer.response),
        }


class _Diary:
    """Collects what each step gave and how long it took."""

    def __init__(self, progress: Progress) -> None:
        self.done: list[DoneStep] = []
        self._progress = progress

    @contextmanager
    def entry(self, name: str, *, has_steps: bool = False) -> Iterator[list[str]]:
        """Time a step; one that has steps of its own lets these be shown instead."""
        if not has_steps:
            self._progress.step(name)
        started = time.perf_counter()
        result: list[str] = []
        yield result
        self.done.append(DoneStep(name, "; ".join(result), time.perf_counter() - started))


def run_demo(
    settings: Settings, *, source: str | None, config: Path | None, progress: Progress
) -> Shown:
    """Run the main job in a home of its own.

    Args:
        settings: its state goes to `demo/` under the home they name.
        source: any source; when None the NASA cells if they are there, else a simulated fleet.
        config: the configuration file, handed on to the server.
        progress: told what is being done.

    Raises:
        BatteryOpsError: what any of the steps refuses. When a gate fails, the page is written
            first, without an answer, and `GateError` says where it is.
    """
    settings = settings.in_home(settings.home / "demo")
    source = source or _best_source(settings)
    diary = _Diary(progress)
    with diary.entry("take in cycles") as said:
        taken = ingest(source, settings)
        said.append(_counts(taken))
    with diary.entry("check quality, compute features") as said:
        prepared = prepare(taken.recording, get_view(settings.training.view), settings)
        said.append(
            f"{prepared.table.height} discharges train, {prepared.set_aside.height} set aside"
        )
    with diary.entry("evaluate, fit, judge", has_steps=True) as said:
        trained = train(prepared, settings, progress)
        said.extend(
            f"{name}: MAE {result.metrics.mae_ah:.4f} Ah, R2 {result.metrics.r2:.3f}"
            for name, result in trained.results.items()
        )
    with diary.entry("package and register", has_steps=True) as said:
        registered = register(trained, settings, out=None, progress=progress)
        said.append(
            f"version {registered.version.version}, gates "
            + ("passed" if trained.verdict.passed else "FAILED")
        )
    report = settings.home / "report.html"
    if not trained.verdict.passed:
        report.write_text(_page(registered, source, diary.done, None, settings), "utf-8")
        raise GateError(
            f"the model failed a gate and is not promoted: {'; '.join(trained.verdict.reasons)}; "
            f"the page: {report}"
        )
    with diary.entry("promote") as said:
        promoted = promote(registered.version.version, settings)
        said.append(f"version {promoted.version} is @champion")
    with diary.entry("serve and ask over HTTP") as said:
        answer = _ask(prepared, settings, config)
        said.append(
            f"{_told(answer.response)}, measured {answer.measured_ah:.4f} Ah "
            "(a discharge it was fitted on)"
        )
    with diary.entry("write the page") as said:
        report.write_text(_page(registered, source, diary.done, answer, settings), "utf-8")
        said.append(str(report))
    return Shown(source, tuple(diary.done), report, settings.home, registered, answer)


def _best_source(settings: Settings) -> str:
    has_nasa = settings.data is not None and (settings.data / PUBLISHED["nasa"]).is_dir()
    return "nasa" if has_nasa else "simulated"


def _counts(taken: Ingested) -> str:
    recording = taken.recording
    return (
        f"{recording.source}: {len(recording.asset_ids)} batteries, "
        f"{recording.cycles.height} cycles, {recording.samples.height} samples"
    )


def _ask(prepared: Prepared, settings: Settings, config: Path | None) -> ServedAnswer:
    row = prepared.table.row(prepared.table.height // 2, named=True)
    request = {"vehicle_id": row["asset_id"], **{name: row[name] for name in prepared.view.names}}
    with (
        _own_key(settings) as secret,
        running_server(settings, config) as url,
        requests.Session() as session,
    ):
        session.trust_env = False  # no proxy stands between this process and its own server
        session.headers["Authorization"] = f"Bearer {secret}"
        try:
            ready = session.get(f"{url}/readyz", timeout=READY_WITHIN_S)
            response = session.post(f"{url}/predict", json=request, timeout=READY_WITHIN_S)
        except requests.RequestException as error:
            raise BatteryOpsError(f"the server on {url} does not answer: {error}") from error
    if ready.status_code != requests.codes.ok or response.status_code != requests.codes.ok:
        raise BatteryOpsError(
            f"the server answered /readyz with {ready.status_code} and /predict with "
            f"{response.status_code}: {response.text}"
        )
    body = response.json()
    with PredictionLog(settings.predictions_url) as log:
        logged = log.get(body["prediction_id"])
    if logged is None or body["capacity_ah"] not in {logged.capacity_ah, None}:
        raise BatteryOpsError(f"answer {body['prediction_id']} is not in the prediction log")
    return ServedAnswer(
        request=request,
        status=f"{response.status_code} {response.reason}",
        response=body,
        measured_ah=row[LABEL],
        note=(
            "The champion was fitted on this discharge among others; how good it is on batteries "
            "it never saw stands above. The answer is in the prediction log."
        ),
    )


def _told(response: Mapping[str, Any]) -> str:
    interval = response["interval"]
    capacity_ah = response["capacity_ah"]
    number = response["status"] if capacity_ah is None else f"{capacity_ah:.4f} Ah"
    return f"{number} in [{interval['low_ah']:.4f}, {interval['high_ah']:.4f}] Ah"


@contextmanager
def _own_key(settings: Settings) -> Iterator[str]:
    """An API key for as long as the demo asks, on the ledger as any other."""
    with Ledger(settings.ledger_url) as ledger, ApiKeys(settings.predictions_url) as keys:
        key, secret = keys.create(f"demo-{new_id()}", ["predict"])
        try:
            ledger.append(KEY_CREATED, key.name, {"key_id": key.key_id, "scopes": ["predict"]})
            yield secret
        finally:
            keys.revoke(key.key_id)
            ledger.append(KEY_REVOKED, key.name, {"key_id": key.key_id, "scopes": ["predict"]})


@contextmanager
def running_server(settings: Settings, config: Path | None) -> Iterator[str]:
    """Start `batteryops serve` on a free port, yield its URL, and end it.

    Raises:
        BatteryOpsError: when it does not come up.
    """
    command = [sys.executable, "-m", "batteryops", "serve", "--json", "--port", "0"]
    command += ["--home", str(settings.home)]
    command += ["--config", str(config)] if config else []
    log = settings.home / "server.log"
    with server_process(command, log, _environment(settings)) as url:
        yield url


def _environment(settings: Settings) -> dict[str, str]:
    """Where everything is, for a process of its own; outranks what stands in a file."""
    places = {
        "BATTERYOPS_DATA": str(settings.data or ""),
        "BATTERYOPS_RECORDS__PREDICTIONS_URL": settings.predictions_url,
        "BATTERYOPS_RECORDS__LEDGER_URL": settings.ledger_url,
        "BATTERYOPS_REGISTRY__TRACKING_URI": settings.tracking_uri,
        "BATTERYOPS_REGISTRY__ARTIFACT_ROOT": settings.artifact_root,
    }
    return dict(os.environ) | places


def _page(
    registered: Registered,
    source: str,
    steps: list[DoneStep],
    answer: ServedAnswer | None,
    settings: Settings,
) -> str:
    with Ledger(settings.ledger_url) as ledger:
        entries = ledger.entries(limit=20)
    version = registered.version
    return render(
        Page(
            trained=registered.trained,
            title="From raw cycles to a served, gated model",
            subtitle=(
                f"{settings.registry.model_name} version {version.version}, "
                f"trained on {registered.trained.prepared.source}"
            ),
            source_note=source_note(source),
            provenance={
                "command": f"batteryops demo --source {source}",
                **provenance(registered.trained.prepared, settings),
            },
            steps=steps,
            answer=answer,
            ledger=entries,
        )
    )
