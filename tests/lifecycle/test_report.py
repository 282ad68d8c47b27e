"""The page: self-contained, and safe with names that people choose."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from batteryops.features.views import get_view
from batteryops.lifecycle.preparation import Prepared, prepare
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.report import Page, render
from batteryops.lifecycle.sources import open_source
from batteryops.lifecycle.training import train
from batteryops.settings import load_settings

HOSTILE = "EV-<script>alert(1)</script>"


def test_the_page_escapes_names_and_needs_no_network(quick_config: Path, fleet_file: Path) -> None:
    settings = load_settings(quick_config)
    view = get_view("discharge_summary")
    prepared = prepare(open_source(str(fleet_file), settings), view, settings)
    renamed = prepared.table.with_columns(
        asset_id=pl.when(pl.col("asset_id") == "EV-0001")
        .then(pl.lit(HOSTILE))
        .otherwise("asset_id")
    )
    hostile: Prepared = replace(prepared, table=renamed, source=HOSTILE)

    page = render(
        Page(
            trained=train(hostile, settings, Silent()),
            title=HOSTILE,
            subtitle="",
            source_note=HOSTILE,
            provenance={"source": HOSTILE},
        )
    )

    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "http" not in page.replace("An answer over HTTP", "")
