"""Commands on models: features, train, evaluate, validate, versions, promote."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batteryops.cli import findings, terminal
from batteryops.cli.answering import read_secret
from batteryops.cli.options import (
    Algorithm,
    Config,
    Features,
    Home,
    Json,
    KeyFile,
    Servers,
    Source,
    View,
    settings_of,
)
from batteryops.cli.trials import show_servers

if TYPE_CHECKING:
    from batteryops.lifecycle.servers import ServerState


def features(
    out: Annotated[Path, typer.Option("--out", help="File to write: .parquet or .csv.")],
    source: Source = None,
    view: View = None,
    keep_incomplete: Annotated[
        bool,
        typer.Option(
            "--keep-incomplete", help="Write rows without a label or a required feature too."
        ),
    ] = False,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Compute a feature view: one row per discharge, with its label.

    The table also says when each record ends, `discharge_time_s`, be it a feature of the view or
    not: batteries that were aged together are found by it.
    """
    from batteryops.features.files import check_writable, write_feature_table
    from batteryops.features.views import complete_rows, feature_table, get_view
    from batteryops.lifecycle.preparation import with_clock
    from batteryops.lifecycle.sources import default_source, open_source

    check_writable(out)
    settings = settings_of(config, home)
    chosen = get_view(view or settings.training.view)
    recording = open_source(source or default_source(settings), settings, kinds=chosen.kinds)
    table = with_clock(feature_table(chosen, recording), recording)
    total = table.height
    missing: dict[str, int] = {}
    if not keep_incomplete:
        table, missing = complete_rows(table, chosen)
    write_feature_table(table, out)
    if as_json:
        terminal.print_json(
            {
                "view": chosen.name,
                "version": chosen.version,
                "schema_hash": chosen.schema_hash,
                "source": recording.source,
                "rows": table.height,
                "left_out": total - table.height,
                "left_out_for": missing,
                "out": out,
            }
        )
        return
    terminal.say(
        f"{table.height} rows of {chosen.name} v{chosen.version} from {recording.source} in {out}"
    )
    if total > table.height:
        reasons = ", ".join(f"{count} without {name}" for name, count in missing.items())
        terminal.say(
            f"{total - table.height} cycles left out ({reasons}); "
            "--keep-incomplete writes them too, `batteryops data check --list` names them"
        )


def train(
    source: Source = None,
    features_file: Features = None,
    view: View = None,
    algorithm: Algorithm = None,
    tournament: Annotated[
        bool,
        typer.Option(
            "--tournament",
            help="Compare all algorithms on batteries never seen, and take the best of them or a "
            "combination of three.",
        ),
    ] = False,
    search: Annotated[
        float,
        typer.Option(
            "--search",
            metavar="SECONDS",
            min=0.0,
            help="Search so long, over all folds, for the algorithm's values; with --tournament "
            "for XGBoost's.",
            show_default="no search",
        ),
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also leave the model package in this folder.")
    ] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Evaluate, fit, gate, package and register. Exit 1 when a gate says no."""
    from batteryops.lifecycle.registration import train_and_register
    from batteryops.lifecycle.training import Choice

    if algorithm is not None and tournament:
        raise typer.BadParameter(
            "--tournament chooses the algorithm; name entrants under tournament.entrants in the "
            "configuration, or give --algorithm alone"
        )
    settings = settings_of(config, home)
    if view is not None:
        training = settings.training.model_copy(update={"view": view})
        settings = settings.model_copy(update={"training": training})
    with terminal.steps(quiet=as_json) as progress:
        registered = train_and_register(
            settings,
            source=source,
            features_file=features_file,
            out=out,
            progress=progress,
            choice=Choice(algorithm, tournament=tournament, search_s=search),
        )
    trained = registered.trained
    if as_json:
        terminal.print_json(
            {
                "version": registered.version.version,
                "package": registered.package.folder,
                "data_fingerprint": trained.prepared.fingerprint,
                "rows": trained.prepared.table.height,
                "quarantined": trained.prepared.report.quarantined_rows,
                "algorithm": trained.algorithm.model_dump(),
                "search": trained.found.to_json() if trained.found else None,
                "tournament": trained.tournament.to_json() if trained.tournament else None,
                "notes": list(trained.notes),
                "training": trained.facts,
                "protocols": {name: result.to_json() for name, result in trained.results.items()},
                "leakage": trained.leakage.to_json(),
                "gates": trained.verdict.to_json()["gates"],
                "shortfalls": list(trained.shortfalls),
            }
        )
    else:
        if trained.tournament:
            findings.show_tournament(trained.tournament)
        if trained.found:
            findings.show_search(trained.found)
        findings.show_results(trained.results.values())
        findings.show_leakage(trained.leakage)
        findings.show_verdict(trained.verdict)
        for note in trained.notes:
            terminal.note(note)
        for shortfall in trained.shortfalls:
            terminal.note(f"a baseline does better, {shortfall}")
        terminal.say(
            f"{trained.algorithm} is registered as {settings.registry.model_name} version "
            f"{registered.version.version}; package in {registered.package.folder}"
        )
        if trained.verdict.passed:
            terminal.say(f"to put it in service: batteryops promote {registered.version.version}")
    if not trained.verdict.passed:
        raise typer.Exit(1)


def evaluate(
    features_file: Annotated[
        Path | None,
        typer.Option("--features", help="A feature table (.csv, .parquet), used as it is."),
    ] = None,
    source: Source = None,
    view: View = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", help="random, unseen_assets, unseen_schedules, later_cycles, or all."
        ),
    ] = "all",
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="Take every asset to have this profile."),
    ] = None,
    algorithm: Algorithm = None,
    known_labels: Annotated[
        str | None,
        typer.Option(
            "--known-labels",
            metavar="N|all",
            help="Correct the model by the tested batteries' own first N measurements, or by all "
            "before the cycle that is asked about; no intervals then.",
        ),
    ] = None,
    train_on: Annotated[
        str | None,
        typer.Option("--train", help="Train on this source, and test on that of --test."),
    ] = None,
    test_on: Annotated[
        str | None, typer.Option("--test", help="Test on this source, all of it.")
    ] = None,
    leakage: Annotated[
        bool | None,
        typer.Option(
            "--leakage/--no-leakage",
            help="Show what gives the label away, or do not look for it.",
            show_default="looked for, and told in a line",
        ),
    ] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Measure a model under a protocol, with baselines beside it.

    Exit 1 when a view that claims to be free of leakage is not.
    """
    from batteryops.lifecycle.evaluation import Known
    from batteryops.lifecycle.source_evaluation import BETWEEN, evaluate_between, evaluate_source

    settings = settings_of(config, home)
    known = Known.parse(known_labels) if known_labels else None
    between = train_on is not None and test_on is not None
    if not between and (train_on or test_on):
        raise typer.BadParameter("--train and --test go together: one source each")
    if between and (features_file or source or profile or protocol not in {"all", BETWEEN}):
        raise typer.BadParameter(
            "--train and --test say what to evaluate on; --features, --source, --profile and "
            "--protocol have no place beside them"
        )
    with terminal.steps(quiet=as_json) as progress:
        if train_on is not None and test_on is not None:
            protocol = BETWEEN
            evaluated = evaluate_between(
                settings,
                train=train_on,
                test=test_on,
                view=view,
                algorithm=algorithm,
                known=known,
                leakage=leakage is not False,
                progress=progress,
            )
        else:
            evaluated = evaluate_source(
                settings,
                features_file=features_file,
                source=source,
                view=view,
                protocol=protocol,
                profile=profile,
                algorithm=algorithm,
                known=known,
                leakage=leakage is not False,
                progress=progress,
            )
    results, found = evaluated.results, evaluated.leakage
    if as_json:
        documents = {
            name: result.to_json() | {"notes": list(evaluated.notes)}
            for name, result in results.items()
        }
        document = documents if protocol == "all" else documents[protocol]
        terminal.print_json(document | ({"leakage": found.to_json()} if found else {}))
    else:
        findings.show_results(results.values())
        if found and (leakage or found.broken):
            findings.show_leakage(found)
        elif found:
            terminal.say(findings.leakage_line(found))
        for note in evaluated.notes:
            terminal.note(note)
    if found and found.broken:
        raise typer.Exit(1)


def validate(
    model: Annotated[
        str,
        typer.Option(
            "--model", help="Package folder, XGBoost file (.ubj, .json), version, or alias."
        ),
    ] = "champion",
    test_data: Annotated[
        Path | None,
        typer.Option("--test-data", help="Labelled feature table that was not trained on."),
    ] = None,
    threshold_mae: Annotated[
        float, typer.Option("--threshold-mae", help="MAE must be below this, in Ah.")
    ] = 0.02,
    threshold_r2: Annotated[
        float, typer.Option("--threshold-r2", help="R2 must be above this.")
    ] = 0.98,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Apply gates to a saved model on test data. Exit 1, with reasons, when one says no."""
    from batteryops.lifecycle.validation import validate_model

    checked = validate_model(
        model,
        test_data,
        settings_of(config, home),
        threshold_mae_ah=threshold_mae,
        threshold_r2=threshold_r2,
    )
    if as_json:
        terminal.print_json(checked.to_json())
    else:
        findings.show_verdict(checked.verdict)
        for note in checked.notes:
            terminal.note(note)
    if not checked.verdict.passed:
        raise typer.Exit(1)


GATES_SHOWN = {True: ("passed", "green"), False: ("failed", "red"), None: ("unknown", "dim")}


def versions(config: Config = None, home: Home = None, as_json: Json = False) -> None:
    """List the registered versions, where each stands, and what it measured."""
    from batteryops.lifecycle.loading import open_registry
    from batteryops.urls import masked

    settings = settings_of(config, home)
    found = open_registry(settings).versions()
    if as_json:
        terminal.print_json([version.to_json() for version in found])
        return
    if not found:
        where = masked(settings.tracking_uri)
        terminal.say(f"{where} has no version yet; `batteryops train` makes one")
        return
    terminal.table(
        f"versions of {settings.registry.model_name}",
        ["version", "stands", "aliases", "gates", "random MAE Ah", "unseen MAE Ah", "created"],
        [
            [
                version.version,
                version.status,
                ", ".join(f"@{alias}" for alias in version.aliases),
                terminal.styled(*GATES_SHOWN[version.gates_passed]),
                version.metrics.get("random.mae_ah", "-"),
                version.metrics.get("unseen_assets.mae_ah", "-"),
                version.created_at.strftime("%Y-%m-%d %H:%M"),
            ]
            for version in found
        ],
        spare=["created"],
    )


def promote(
    version: Annotated[int, typer.Argument(help="The version's number.")],
    to: Annotated[str, typer.Option("--to", help="champion or challenger.")] = "champion",
    force: Annotated[
        bool, typer.Option("--force", help="Promote a version that failed a gate.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why; needed with --force, kept in the ledger.")
    ] = None,
    server: Servers = None,
    key_file: KeyFile = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Put a version in service. One that failed a gate needs --force and --reason.

    Exit 1 also when it is champion, but a running server does not answer with it yet.
    """
    from batteryops.lifecycle.promotion import promote as put_in_service
    from batteryops.lifecycle.servers import servers_of, wait_until_served

    settings = settings_of(config, home)
    urls, secret = servers_of(settings, server, None if key_file is None else read_secret(key_file))
    promoted = put_in_service(version, settings, to=to, force=force, reason=reason)
    servers: tuple[ServerState, ...] = ()
    if to == "champion":
        fingerprint = promoted.entry.details["package_fingerprint"]
        servers = wait_until_served(settings, version, fingerprint, urls=urls, secret=secret)
    if as_json:
        told = {"servers": [one.to_json() for one in servers]} if servers else {}
        terminal.print_json(promoted.to_json() | told)
    else:
        stands = "archived" if to == "champion" else "a candidate again"
        before = f"; version {promoted.replaced} is {stands}" if promoted.replaced else ""
        terminal.say(f"version {version} is @{to}{before} (ledger line {promoted.entry.sequence})")
        if servers:
            show_servers(servers)
        elif to == "champion":
            terminal.say("a server that is running and follows the registry answers with it soon")
    if not all(one.served for one in servers):
        raise typer.Exit(1)


__all__ = ["evaluate", "features", "promote", "train", "validate", "versions"]
