"""What a report says: who is kept for which use, counts, merging, JSON."""

import json

import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.quality.report import (
    QUARANTINE,
    CheckResult,
    QualityReport,
    build_report,
)

REASONS = [
    ("B0041", 1, "crashed_run", "delivered 0.07 Ah", 0.07, 0.2),
    ("B0041", 1, "stub", "stub record of 3 samples", 3.0, 5.0),
    ("B0042", 4, "false_label", "label 0.09 Ah", 0.09, 1.1),
    ("B0052", 6, "label", "no label", None, None),
]


def quarantine(*rows: tuple[str, int, str, str, float | None, float | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=QUARANTINE, orient="row")


def report(n_rows: int = 10) -> QualityReport:
    return build_report([], quarantine(*REASONS), n_rows, max_share=0.25)


def table() -> pl.DataFrame:
    return pl.DataFrame(
        {"asset_id": ["B0041", "B0041", "B0042", "B0052"], "op_index": [1, 2, 4, 6]}
    )


def test_a_cycle_with_two_faults_counts_once() -> None:
    assert report().quarantined_rows == 3


def test_training_keeps_fewer_cycles_than_prediction() -> None:
    assert report().kept(table(), "training").rows() == [("B0041", 2)]
    assert report().kept(table(), "prediction").rows() == [
        ("B0041", 2),
        ("B0042", 4),
        ("B0052", 6),
    ]


def test_a_table_keyed_by_cycle_index_is_understood() -> None:
    cycles = table().rename({"op_index": "cycle_index"})
    assert report().kept(cycles)["cycle_index"].to_list() == [2]


def test_an_empty_quarantine_keeps_all_rows() -> None:
    assert QualityReport((), quarantine(), 4).kept(table()).equals(table())


def test_a_table_without_a_key_is_refused() -> None:
    with pytest.raises(DataError, match="expected asset_id and op_index"):
        report().kept(pl.DataFrame({"vehicle": ["B0041"]}))


def test_cycles_without_a_label_do_not_count_towards_the_share() -> None:
    assert report(n_rows=10).checks[-1].value == 0.2  # B0041 1 and B0042 4, not B0052 6
    assert report(n_rows=8).accepted  # exactly a quarter
    assert not report(n_rows=7).accepted


def test_a_report_over_nothing_has_no_share() -> None:
    assert build_report([], quarantine(), 0, max_share=0.25).checks[-1].value == 0.0


def test_summary_counts_cycles_per_check_and_asset() -> None:
    assert report().summary().rows() == [
        ("crashed_run", "B0041", 1),
        ("false_label", "B0042", 1),
        ("label", "B0052", 1),
        ("stub", "B0041", 1),
    ]


def test_merging_joins_reasons_once_and_works_the_share_out_anew() -> None:
    other = build_report(
        [CheckResult("range", "v_mean", "quarantine", 0.1, None, 1, "rows")],
        quarantine(REASONS[0], ("B0041", 2, "range", "v_mean is 9", 9.0, 4.5)),
        4,
        max_share=0.25,
    )
    both = report(n_rows=10).merge(other)
    assert both.quarantine.height == 5
    assert both.n_rows == 10
    assert [c.name for c in both.checks] == ["range", "quarantined_share"]
    assert both.checks[-1].value == 0.3
    assert not both.accepted


def test_merging_reports_without_a_share_adds_none() -> None:
    empty = QualityReport((), quarantine(), 1)
    assert empty.merge(empty).checks == ()


def test_a_report_is_plain_json() -> None:
    bad = CheckResult("range", "v", "warn", float("nan"), float("inf"), 1, "odd values")
    given = build_report([bad], quarantine(*REASONS), 10, max_share=0.25).to_json()
    read = json.loads(json.dumps(given, allow_nan=False))
    assert read["accepted"] is True
    assert read["quarantined_by_check"] == {
        "crashed_run": 1,
        "false_label": 1,
        "label": 1,
        "stub": 1,
    }
    assert read["checks"][0]["value"] is None
    assert read["checks"][1]["value"] == 0.2
