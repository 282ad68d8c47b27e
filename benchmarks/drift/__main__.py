"""Drift alone: `python -m benchmarks.drift`; `--install` makes the environment of its peer."""

import argparse

from benchmarks.drift import report
from benchmarks.drift.run import install, measure

from batteryops.cli.terminal import console, print_json


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="install Evidently for itself")
    parser.add_argument("--rounds", type=int, default=5, help="of those that take turns")
    parser.add_argument("--millions", type=int, default=30, help="rows of the longest run")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    if given.install:
        install()
        return
    with console(stderr=True).status("") as status:
        lines = measure(status.update, rounds=given.rounds, largest_millions=given.millions)
    if given.json:
        print_json({"drift": report.to_json(lines)})
    else:
        report.show(lines)


if __name__ == "__main__":
    main()
