"""Commands on models in service: the verdict of a trial, and going back to a good version."""

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.answering import read_secret
from batteryops.cli.options import Config, Home, Json, KeyFile, Servers, settings_of
from batteryops.errors import BatteryOpsError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batteryops.evaluation.ab_verdict import ABVerdict, ModelFacts
    from batteryops.lifecycle.servers import ServerState
    from batteryops.lifecycle.trials import TrialLook
    from batteryops.settings import Settings

COULD_NOT = 2
_SAID_NO = frozenset(("reject", "stop_for_harm"))
_COLOURS = {"promote": "green", "continue": "yellow", "reject": "red", "stop_for_harm": "red"}


def ab(
    champion: Annotated[
        int | None,
        typer.Option("--champion", help="Its version.", show_default="that at @champion"),
    ] = None,
    challenger: Annotated[
        int | None,
        typer.Option("--challenger", help="Its version.", show_default="that at @challenger"),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            "--since",
            help="When the trial began, UTC.",
            show_default="when the ledger has it that the challenger was put there",
        ),
    ] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Judge the trial of a challenger beside the champion, now.

    Exit 0 when it is to be promoted or goes on, 1 when it is rejected or does harm, 2 when it
    cannot be judged.
    """
    try:
        look = _look(settings_of(config, home), champion, challenger, since)
    except BatteryOpsError as error:
        terminal.say(str(error), label="error", style="red")
        raise typer.Exit(COULD_NOT) from error
    if as_json:
        terminal.print_json(look.to_json())
    else:
        _show(look)
    if look.verdict.decision in _SAID_NO:
        raise typer.Exit(1)


def rollback(
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes on the ledger.")],
    to: Annotated[
        int | None,
        typer.Option(
            "--to", help="Go back to this version.", show_default="the last good champion"
        ),
    ] = None,
    server: Servers = None,
    key_file: KeyFile = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Put the last good version back in service, and see that the servers answer with it.

    Exit 1 when it is back, but a server does not answer with it yet; 2 when it could not be put
    back.
    """
    from batteryops.lifecycle.rollback import rollback as go_back

    try:
        with terminal.steps(quiet=as_json) as progress:
            done = go_back(
                settings_of(config, home),
                reason=reason,
                to=to,
                actor=getpass.getuser(),
                servers=server,
                secret=None if key_file is None else read_secret(key_file),
                progress=progress,
            )
    except BatteryOpsError as error:
        terminal.say(str(error), label="error", style="red")
        raise typer.Exit(COULD_NOT) from error
    if as_json:
        terminal.print_json(done.to_json())
    else:
        for version, problem in done.passed_over:
            terminal.note(f"version {version} was passed over: {problem}")
        if done.resumed:
            terminal.note("this rollback was decided before; it was carried out to its end")
        terminal.say(
            f"version {done.version} is @champion; version {done.replaced} is archived "
            f"(ledger line {done.entry.sequence}, {done.seconds:.2f} s)"
        )
        if done.challenger is not None:
            terminal.say(f"the trial of version {done.challenger} ended: its champion is gone")
        show_servers(done.servers)
    if not done.verified:
        raise typer.Exit(1)


def show_servers(servers: "Sequence[ServerState]") -> None:
    """What running servers said, and what to do about those that do not answer as they should."""
    if not servers:
        terminal.say("no server was asked; name some in retraining.servers, or with --server")
        return
    terminal.table(
        "servers",
        ["server", "version", "seconds", "problem"],
        [
            [
                server.url,
                server.version or "-",
                server.seconds,
                terminal.styled(server.problem or "-", "red" if server.problem else ""),
            ]
            for server in servers
        ],
    )
    if not all(server.served for server in servers):
        terminal.note(
            "the registry is as it should be: a server that runs follows it by itself; "
            "look at its log, or have it look with `batteryops refresh`"
        )


def _look(
    settings: "Settings", champion: int | None, challenger: int | None, since: datetime | None
) -> "TrialLook":
    from batteryops.lifecycle.loading import open_registry
    from batteryops.lifecycle.trials import look_at_trial, stands_since

    registry = open_registry(settings)
    first = registry.version_at("champion").version if champion is None else champion
    second = registry.version_at("challenger").version if challenger is None else challenger
    now = datetime.now(UTC)
    began = stands_since(settings, second, "challenger") if since is None else _utc(since)
    if began > now:
        raise DataError(f"--since {began} is in the future, it is {now}")
    return look_at_trial(settings, champion=first, challenger=second, since=began, until=now)


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _show(look: "TrialLook") -> None:
    verdict = look.verdict
    terminal.table(
        f"version {look.challenger} against version {look.champion}, {verdict.design}, "
        f"{verdict.days:.3g} days",
        ["model", "asked", "no number", "labelled", "vehicles", "MAE Ah", "median ms"],
        [
            [name, look.asked[name], look.failed[name], *_numbers(facts)]
            for name, facts in (
                ("champion", verdict.champion),
                ("challenger", verdict.challenger),
            )
        ],
    )
    terminal.table(
        "what is asked for",
        ["what", "is", "expected"],
        _measures(verdict),
    )
    if verdict.groups:
        terminal.table(
            "groups",
            ["by", "group", "vehicles", "champion Ah", "challenger Ah", "margin Ah", "p", "says"],
            [
                [
                    group.by,
                    group.name,
                    group.n_vehicles,
                    _known(group.champion_mae_ah),
                    _known(group.challenger_mae_ah),
                    _known(group.margin_ah),
                    _known(group.p_not_inferior),
                    group.status,
                ]
                for group in verdict.groups
            ],
            spare=["margin Ah"],
        )
    told = f"labels received since {look.unseen_since:%Y-%m-%d %H:%M} UTC count"
    terminal.say(f"{told}; {terminal.counted(look.replayed, 'pair')} from before were replayed")
    if look.sampled:
        terminal.say("of the questions without a label a sample was looked at")
    terminal.say(
        "; ".join(verdict.reasons) or "nothing more is known",
        label=verdict.decision.replace("_", " "),
        style=_COLOURS[verdict.decision],
    )


def _numbers(facts: "ModelFacts") -> list[object]:
    return [facts.compared, facts.vehicles, _known(facts.mae_ah), _known(facts.latency_p50_ms)]


def _measures(verdict: "ABVerdict") -> list[list[object]]:
    rules, found = verdict.rules, verdict.improvement
    both = max(verdict.champion.answers, verdict.challenger.answers)
    alone = verdict.unpaired / (both + verdict.unpaired) if verdict.unpaired else 0.0
    slower = _known(verdict.latency_ratio)
    rows: list[list[object]] = [
        ["days", verdict.days, f"{rules.min_days:g} to {rules.max_days:g}"],
        ["latency, challenger / champion", slower, f"<= {rules.max_latency_ratio:g}"],
        ["share that one model alone answered", alone, f"<= {rules.max_unpaired_share:g}"],
    ]
    if verdict.sample_ratio_p is not None:
        rows.append(["p of the split", verdict.sample_ratio_p, f">= {rules.sample_ratio_level:g}"])
    if found is None:
        return [*rows, ["errs less by, Ah", "-", "labels of two vehicles"]]
    confidence = f"{1 - rules.level:.0%}"
    return [
        *rows,
        ["errs less by, Ah", found.effect, "> 0"],
        [f"at least, Ah ({confidence} at every look)", found.low, "-"],
        [f"at most, Ah ({confidence} at every look)", found.high, "-"],
        ["p at every look", found.p, f"< {rules.level:g}"],
        ["p, had nobody looked before", found.p_one_look, "-"],
        ["Cohen's d", found.size.d, f"> {rules.min_effect_size:g}"],
    ]


def _known(value: float | None) -> object:
    return "-" if value is None else value
