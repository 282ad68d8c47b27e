"""Commands that watch a model in service: drift, monitor."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Home, Json, settings_of
from batteryops.errors import BatteryOpsError

if TYPE_CHECKING:
    from batteryops.lifecycle.drift import Comparison
    from batteryops.lifecycle.drift_references import NamedReference
    from batteryops.lifecycle.monitoring import Monitored
    from batteryops.lifecycle.progress import Progress
    from batteryops.settings import Settings

ALERT_EXIT: Final = 1
FAILED_EXIT: Final = 2

_COLOURS: Final = {
    "ALERT": "bold red",
    "alert": "bold red",
    "missing": "bold red",
    "WARNING": "yellow",
    "warning": "yellow",
    "NOT_JUDGED": "yellow",
    "TOO_FEW": "cyan",
    "too_few": "cyan",
    "expected": "green",
    "OK": "green",
    "ok": "green",
}


def drift(
    reference: Annotated[
        str | None,
        typer.Argument(
            help="A model's version or alias (3, @champion), the folder of a package, a fitted "
            "reference (.json), or a table (.csv, .parquet).",
            show_default=False,
        ),
    ] = None,
    current: Annotated[
        str | None,
        typer.Argument(
            help="A table (.csv, .parquet), a folder of them, or log: what was answered lately.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Also write a page with all distributions to this .html file."),
    ] = None,
    save_reference: Annotated[
        Path | None,
        typer.Option(
            "--save-reference",
            help="Also write the reference to this .json file; then CURRENT may be left out.",
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            help="Columns to compare, a comma between, where REFERENCE is a table.",
            show_default="those of a feature view, else all numbers",
        ),
    ] = None,
    prediction: Annotated[
        str | None,
        typer.Option("--prediction", help="Column of a table that holds a model's predictions."),
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test",
            help="Plant known shifts into a copy of recent traffic instead, and tell how many rows "
            "it takes to find each: of the log, or of a table given in place of REFERENCE.",
        ),
    ] = False,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Compare current rows with a reference: what drifts, how far, and why.

    Exit 0 on OK and WARNING, also where rows are too few to say; 1 on ALERT, also where a feature
    does not come at all; 2 where nothing could be compared.
    """
    named = [name.strip() for name in (features or "").split(",") if name.strip()]
    with _failures():
        _check_ending(out, ".html", "a page")
        _check_ending(save_reference, ".json", "a reference")
        if self_test:
            if current is not None:
                raise typer.BadParameter("--self-test takes one table of traffic, none for the log")
            _self_test(reference, settings_of(config, home), as_json=as_json)
            return
        if reference is None or (current is None and save_reference is None):
            raise typer.BadParameter(
                "give a REFERENCE and CURRENT rows, or --save-reference to keep the reference"
            )
        settings = settings_of(config, home)
        with terminal.steps(quiet=as_json) as progress:
            found, compared = _compare(
                reference, current, settings, progress, named, prediction, save_reference
            )
        if compared is not None and out is not None:
            _write_page(out, compared)
    if compared is None:
        _say_fitted(found, save_reference, as_json=as_json)
        return
    if as_json:
        terminal.print_json(compared.to_json() | {"page": out, "saved_reference": save_reference})
    else:
        show_drift(compared)
        _say_files({"reference": save_reference, "page": out})
    if compared.report.verdict == "ALERT":
        raise typer.Exit(ALERT_EXIT)


def monitor(
    model: Annotated[
        str, typer.Option("--model", help="In service: version, alias, or package folder.")
    ] = "champion",
    textfile: Annotated[
        Path | None,
        typer.Option(
            "--textfile",
            help="Also write the metrics to this .prom file, for node_exporter's textfile "
            "collector.",
        ),
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test",
            help="Also plant known shifts into a copy of the last rows, and tell how soon they are "
            "found.",
        ),
    ] = False,
    every: Annotated[
        float,
        typer.Option(
            "--every",
            metavar="SECONDS",
            min=0.0,
            help="Keep going, with so much time from start to start.",
            show_default="once",
        ),
    ] = 0.0,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Look at the recent window of the log, and put on record how the model is doing.

    Exit 0 on OK and WARNING, also where too little is known to say; 1 on ALERT; 2 where the
    databases could not be read. With --every it goes on whatever it finds, until it is told to
    stop, and exits as its last run would.
    """
    from batteryops.lifecycle.monitoring import run_monitoring
    from batteryops.monitoring.exposition import write_textfile

    def run_once() -> int:
        with terminal.steps(quiet=as_json) as progress:
            found = run_monitoring(settings, progress, model=model, self_test=self_test)
        if textfile is not None:
            write_textfile(found.document, textfile)
        if as_json:
            terminal.print_json(found.document)
        else:
            show_monitored(found, textfile)
        return ALERT_EXIT if found.verdict == "ALERT" else 0

    with _failures():
        _check_ending(textfile, ".prom", "metrics")
        settings = settings_of(config, home)
        code = _again_and_again(run_once, every) if every else run_once()
    if code:
        raise typer.Exit(code)


def show_drift(compared: "Comparison") -> None:
    """Print a table, the worst first, and the verdict."""
    from batteryops.lifecycle.drift import causes_of, meaning, standing
    from batteryops.lifecycle.drift_page import COLUMNS, WORDS, in_words, numbers_of

    report = compared.report
    rows = [
        [
            name,
            terminal.styled(WORDS[standing(found)], _COLOURS[standing(found)]),
            *numbers_of(found),
            (found.cause or "-").replace("_", " "),
            meaning(compared, name),
        ]
        for name, found in compared.ordered.items()
    ]
    terminal.table(
        f"{compared.current_name} against {compared.reference_name}",
        [*COLUMNS, "what it means"],
        rows,
        spare=["what it means", "missing", "p"],
    )
    for cause, names, evidence in causes_of(compared):
        terminal.say(f"{', '.join(names)}: {evidence}", label=cause, style="bold")
    for note in compared.notes:
        terminal.say(note, label="note", style="dim")
    if report.retraining_wanted:
        terminal.say(
            f"critical features in alert: {', '.join(report.retraining_wanted)}",
            label="retraining wanted",
            style="yellow",
        )
    terminal.say(in_words(report), label=_word(report.verdict), style=_COLOURS[report.verdict])


def show_monitored(found: "Monitored", textfile: Path | None) -> None:
    """Print the verdict of each part of a run, and why."""
    from batteryops.lifecycle.monitoring import notes_of

    document = found.document
    model = document.get("model")
    terminal.table(
        f"{document['rows']} answers of {document['window_days']:g} days"
        + (f", version {model['version']} in service" if model else ", no model in service"),
        ["part", "verdict", "why"],
        [
            [
                part.name,
                terminal.styled(_word(part.verdict), _COLOURS[part.verdict]),
                part.why,
            ]
            for part in found.parts
        ],
    )
    for note in notes_of(document):
        terminal.note(note)
    if textfile is not None:
        terminal.say(str(textfile), label="metrics", style="green")
    terminal.say(
        f"on record, {document['seconds']:.1f} s",
        label=_word(found.verdict),
        style=_COLOURS[found.verdict],
    )


def _self_test(traffic: str | None, settings: "Settings", *, as_json: bool) -> None:
    from batteryops.lifecycle.drift import LOG, look_for_planted

    with terminal.steps(quiet=as_json) as progress:
        found = look_for_planted(traffic or LOG, settings, progress)
    if as_json:
        terminal.print_json({"self_test": found.to_json()})
        return
    terminal.table(
        f"planted into {found.rows} rows: found when, and as what",
        ["shift", "after rows", "cause named", ""],
        [
            [
                shift,
                "not found" if rows is None else str(rows),
                found.named.get(shift, "-").replace("_", " "),
                ""
                if shift not in found.named
                else terminal.styled("right", "green")
                if found.right.get(shift)
                else terminal.styled("wrong", "yellow"),
            ]
            for shift, rows in found.delay_rows.items()
        ],
    )
    terminal.say(
        f"{found.false_alarm_share:.1%} of {found.runs} draws without a shift",
        label="false alarms",
        style="bold",
    )


def _word(verdict: str) -> str:
    return verdict.replace("_", " ")


def _compare(
    reference: str,
    current: str | None,
    settings: "Settings",
    progress: "Progress",
    features: list[str],
    prediction: str | None,
    save_reference: Path | None,
) -> "tuple[NamedReference, Comparison | None]":
    """The reference, kept where that is wanted, and the comparison where there are rows."""
    from batteryops.lifecycle import drift as comparing
    from batteryops.lifecycle import drift_references as references

    found = references.open_reference(
        reference, settings, progress, features=features, prediction=prediction
    )
    if save_reference is not None:
        references.save_reference(found.reference, save_reference)
    if current is None:
        return found, None
    return found, comparing.compare(found, current, settings, progress, prediction=prediction)


def _say_files(files: Mapping[str, Path | None]) -> None:
    for label, path in files.items():
        if path is not None:
            terminal.say(str(path), label=label, style="green")


def _say_fitted(found: "NamedReference", file: Path | None, *, as_json: bool) -> None:
    fitted = found.reference
    if as_json:
        terminal.print_json(
            {
                "reference": found.name,
                "rows": fitted.rows,
                "assets": fitted.assets,
                "features": [*fitted.features],
                "saved_reference": file,
                "notes": list(found.notes),
            }
        )
        return
    for note in found.notes:
        terminal.say(note, label="note", style="dim")
    terminal.say(
        f"{file}, of {fitted.rows} rows: {', '.join(fitted.features)}",
        label="reference",
        style="green",
    )


def _again_and_again(run_once: Callable[[], int], every_s: float) -> int:
    """Run until a signal says stop, which lets a run that is under way finish."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    while True:
        started = time.monotonic()  # which no change of the clock moves
        try:
            code = run_once()
        except BatteryOpsError as error:
            terminal.say(str(error), label="error", style="red")
            code = FAILED_EXIT
        if stop.wait(max(0.0, every_s - (time.monotonic() - started))):
            return code


@contextmanager
def _failures() -> Iterator[None]:
    """Exit 2 where something could not be looked at: 1 says that it was, and is not well."""
    try:
        yield
    except BatteryOpsError as error:
        terminal.say(str(error), label="error")
        raise typer.Exit(FAILED_EXIT) from error


def _check_ending(path: Path | None, ending: str, what: str) -> None:
    """Raise before the work where its result could not be written."""
    from batteryops.errors import DataError

    if path is not None and path.suffix != ending:
        raise DataError(f"{path}: {what} is written to a file that ends in {ending}")


def _write_page(out: Path, compared: "Comparison") -> None:
    from batteryops.files import replacing
    from batteryops.lifecycle.drift_page import render_drift

    with replacing(out) as beside:
        beside.write_text(render_drift(compared), encoding="utf-8")
