"""Writes docs/FEATURES.md from the views: `python -m batteryops.features.reference FILE`."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from batteryops.errors import DataError
from batteryops.features.discharge_physics import CUTOFF_V, LOADED_A
from batteryops.features.view import Feature, FeatureView
from batteryops.features.views import VIEWS
from batteryops.files import replacing

_HEAD = f"""\
# Features

This page is generated from the declarations in `src/batteryops/features`; change these, then run
`python -m batteryops.features.reference docs/FEATURES.md`.

A feature view is a named, versioned set of features with one function that computes it, the same
for training and for serving. A cycle computed by itself equals the same cycle computed among
others to the last bit. Its name, its version, and the name, unit and order of its features are
summed up in the schema hash, which travels with a model; a model whose hash differs is refused.

* **Loaded sample**: one at which at least {LOADED_A:g} A flows out of the cell.
* **Cutoff**: {CUTOFF_V:g} V, whatever an asset's profile says; a change of it is a new version.
* **Range**: what is plausible for one cell. A value outside of it is refused, with the slip that
  it looks like (millivolts, milliamps, kelvin, Fahrenheit, a changed sign).
* **Null**: "optional" features are null for some sound cycles, and a model sees them as missing.
  Without one of the others a cycle cannot be used.
* **Holds the label**: the label is the capacity that a full discharge delivered. A feature that
  the capacity can be rebuilt from tells a model what a user who knows the feature could have
  computed as well. Beyond these, every feature over the whole record is known only when the
  discharge, and so the measurement of the capacity, is over.
"""


def page() -> str:
    """The page, in Markdown."""
    return "\n".join([_HEAD, *(_section(view) for view in VIEWS.values())])


def main(arguments: list[str] | None = None) -> None:
    """Write the page to the file named on the command line, at once or not at all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the page to write")
    target: Path = parser.parse_args(arguments).file
    try:
        with replacing(target) as beside:
            beside.write_text(page(), encoding="utf-8")
    except DataError as error:
        parser.error(str(error))


def _section(view: FeatureView) -> str:
    rows = "\n".join(_row(position, feature) for position, feature in enumerate(view.features, 1))
    leaks = _list((feature.name, feature.leaks_label) for feature in view.features)
    safe = _list((feature.name, feature.why_safe) for feature in view.features)
    notes = "\n".join(
        f"\n{heading}:\n\n{items}"
        for heading, items in (("Holds the label", leaks), ("Does not hold the label", safe))
        if items
    )
    context = f", and of each {' and '.join(view.needs)} before it" if view.needs else ""
    return f"""\
## `{view.name}` v{view.version}

{len(view.features)} features of a {view.kind}{context}. Schema hash `{view.schema_hash}`.

| # | feature | unit | range | null | meaning | source |
|---:|---|---|---|---|---|---|
{rows}
{notes}
"""


def _list(explained: Iterable[tuple[str, str | None]]) -> str:
    return "\n".join(f"* `{name}`: {why}." for name, why in explained if why is not None)


def _row(position: int, feature: Feature) -> str:
    null = "optional" if feature.optional else "no"
    return (
        f"| {position} | `{feature.name}` | {feature.unit} | {feature.low:g} to {feature.high:g} "
        f"| {null} | {feature.meaning} | {feature.source} |"
    )


if __name__ == "__main__":
    main()
