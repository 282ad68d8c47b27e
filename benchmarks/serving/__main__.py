"""Serving, side by side: `python -m benchmarks.serving`; also a part of `make bench`."""

import argparse

from benchmarks.serving import closed_loop
from benchmarks.serving.peers import PEERS
from benchmarks.serving.report import show, to_json
from benchmarks.serving.run import Plan, measure

from batteryops.cli.terminal import console, print_json


def main() -> None:
    """Measure, and print tables or JSON."""
    usual = Plan()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--rounds", type=int, default=usual.rounds, help="turns of each server")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="of each turn")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(PEERS),
        metavar="NAME",
        default=PEERS,
        help=f"who takes part: {', '.join(PEERS)}",
    )
    given = parser.parse_args()
    if not closed_loop.is_installed():
        parser.error(closed_loop.INSTALL)
    plan = Plan(tuple(given.only), given.rounds, given.seconds)
    with console(stderr=True).status("") as status:
        found = measure(plan, status.update)
    if given.json:
        print_json(to_json(found, plan))
    else:
        show(found)


if __name__ == "__main__":
    main()
