"""The writer of docs/RESULTS.md: what it computes, and that its pages hold what was measured."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks.results import accuracy, further, goals
from benchmarks.results.__main__ import BEGIN, END, absent, main, remarks, with_table
from benchmarks.results.markdown import number, table

from batteryops.evaluation.protocol_run import ProtocolResult
from batteryops.evaluation.protocols import PROTOCOLS
from batteryops.features.views import VIEWS, get_view
from batteryops.lifecycle.packs import evaluate_packs
from batteryops.lifecycle.preparation import prepare
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.sources import open_source
from batteryops.models.asset_baseline import ResidualProcess
from batteryops.settings import Settings, load_settings


def goal(mae: float, r2: float | None, limits: tuple[float, float | None] | None) -> goals.Goal:
    return goals.Goal("B0018", "a model", "0.027 Ah", limits, mae, r2)


def test_a_goal_is_reached_when_every_number_is_within_it() -> None:
    assert goal(0.015, 0.98, (0.015, 0.98)).verdict == "**reached**"
    assert goal(0.008, None, (0.008, None)).verdict == "**reached**"


def test_a_missed_goal_says_by_which_number() -> None:
    assert goal(0.0386, 0.942, (0.02, 0.98)).verdict == (
        "**missed** (MAE 0.0386 > 0.02, R² 0.942 < 0.98)"
    )
    assert goal(0.01, 0.97, (0.02, 0.98)).verdict == "**missed** (R² 0.97 < 0.98)"


def test_where_no_goal_is_set_none_is_judged() -> None:
    assert goal(0.5, 0.1, None).verdict == "no goal set"


def test_a_missing_value_is_a_dash_in_a_table() -> None:
    lines = table(("cell", "MAE"), [["B0005", float("nan")], ["B0018", 0.012345]])

    assert lines == ["", "| cell | MAE |", "|---|---:|", "| B0005 | - |", "| B0018 | 0.0123 |"]
    assert number(None) == "-"


def test_only_what_stands_between_the_marks_of_the_readme_changes() -> None:
    before = f"# Name\n{BEGIN}\nold\n{END}\nrest"

    assert with_table(before, "| new |") == f"# Name\n{BEGIN}\n\n| new |\n\n{END}\nrest"


def test_a_readme_without_marks_is_refused() -> None:
    with pytest.raises(SystemExit, match="lacks the marks"):
        with_table("# Name", "| new |")


def test_without_real_measurements_the_target_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BATTERYOPS_DATA", str(tmp_path))

    with pytest.raises(SystemExit, match="set BATTERYOPS_DATA"):
        main()


def test_what_the_data_folder_lacks_is_said() -> None:
    assert "Not measured: the data folder has no fleet/packs." in absent(
        "Packs", Path("fleet") / "packs"
    )


def test_the_remarks_are_a_section_of_the_page() -> None:
    assert remarks()[1].startswith("## What was tried")


def life(away_ah: float, n: int = 15) -> pl.DataFrame:
    """Capacity falls by 10 mAh a cycle, and a model is off by the same amount everywhere."""
    capacity = 2.0 - 0.01 * np.arange(n)
    return pl.DataFrame(
        {
            "asset_id": ["a"] * n,
            "op_index": np.arange(1, n + 1),
            "capacity_ah": capacity,
            "predicted_ah": capacity + away_ah,
            "nominal_ah": 2.0,
        }
    )


def result_of(predictions: pl.DataFrame) -> ProtocolResult:
    """Just what the correction looks at."""
    result = object.__new__(ProtocolResult)
    object.__setattr__(result, "predictions", predictions)
    return result


def test_both_readings_of_ten_measurements_are_judged_on_the_cycles_after_them() -> None:
    steady = ResidualProcess(offset_ah=1.0, wander_ah=1e-9, wander_cycles=50.0, noise_ah=1e-6)

    found = goals.corrected(steady, result_of(life(0.1)), ["a"])

    assert {one.n for one in (found.ten, found.earlier, found.last, found.last_of_ten)} == {5}
    assert found.ten.mae_ah == pytest.approx(0.0, abs=1e-9)  # ten residuals tell the offset
    assert found.earlier.mae_ah == pytest.approx(0.0, abs=1e-9)
    assert found.last.mae_ah == pytest.approx(0.01)  # each capacity against the one before it
    assert found.last_of_ten.mae_ah == pytest.approx(0.01 * (1 + 2 + 3 + 4 + 5) / 5)


def test_metrics_of_a_group_pool_its_cells() -> None:
    cells = [life(0.1), life(0.3).with_columns(asset_id=pl.lit("b"))]

    found = goals.of_assets(result_of(pl.concat(cells)), ["a", "b"])

    assert found.mae_ah == pytest.approx(0.2)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, quick_config: Path) -> Settings:
    found = load_settings(quick_config, home=tmp_path_factory.mktemp("results") / "home")
    parameters = {**found.training.parameters, "n_estimators": 10}
    training = found.training.model_copy(update={"parameters": parameters})
    return found.model_copy(update={"training": training})


@pytest.fixture(scope="module")
def measured(settings: Settings, fleet_file: Path) -> accuracy.Accuracy:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accuracy, "VIEWS", {"discharge_summary": VIEWS["discharge_summary"]})
        patch.setattr(accuracy, "MODELS", ("xgboost", "ridge"))
        return accuracy.measure_all(str(fleet_file), settings, Silent())


def test_the_tables_hold_every_protocol_model_and_baseline(
    measured: accuracy.Accuracy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "MODELS", ("xgboost", "ridge"))
    page = "\n".join(accuracy.main_table(measured))
    prepared = measured.prepared["discharge_summary"]

    assert prepared.fingerprint[:16] in page
    for protocol in PROTOCOLS:
        result = measured.results["discharge_summary"]["xgboost"][protocol]
        assert f"| `{protocol}` | **xgboost** | {number(result.metrics.mae_ah)} |" in page
        for baseline, metrics in result.baselines.items():
            assert f"{baseline.replace('_', ' ')} | {number(metrics.mae_ah)} |" in page
    cells = "\n".join(accuracy.per_cell(measured))
    assert all(f"| {asset} |" in cells for asset in prepared.table["asset_id"].unique())


def test_the_readme_has_one_line_for_each_protocol(
    measured: accuracy.Accuracy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "MODELS", ("xgboost", "ridge"))

    heading, rule, *rows = accuracy.readme_table(measured).splitlines()

    assert len(rows) == len(PROTOCOLS)
    assert {line.count("|") for line in (heading, rule, *rows)} == {heading.count("|")}


def test_intervals_stand_on_the_page_over_all_rows_and_in_the_domain(
    measured: accuracy.Accuracy, settings: Settings
) -> None:
    page = "\n".join(further.intervals_section(measured, settings))
    for protocol in accuracy.WITH_INTERVALS:
        found = measured.results["discharge_summary"]["xgboost"][protocol].coverage
        assert found is not None
        assert f"| `{protocol}` | xgboost | {found.asset_coverage:.1%}" in page
        assert f"| {found.in_domain_share:.1%} |" in page
    assert measured.results["discharge_summary"]["ridge"]["unseen_assets"].coverage is None


def test_leakage_of_a_view_stands_on_the_page(settings: Settings, fleet_file: Path) -> None:
    view = get_view("discharge_summary")
    prepared = {view.name: prepare(open_source(str(fleet_file), settings), view, settings)}

    leakage = further.measure_leakage(prepared, settings, Silent())

    [found] = leakage
    page = "\n".join(further.leakage_section(leakage))
    assert all(f"- {finding.message}" in page for finding in found.report.findings)


@pytest.mark.data
def test_packs_stand_on_the_page_with_their_errors(data_folder: Path) -> None:
    packs = evaluate_packs(data_folder / "fleet" / "deng2024_inservice")

    page = "\n".join(further.packs_section(packs))

    assert all(f"| {answer.asset_id} |" in page for answer in packs.answers)
    assert f"{packs.errors.mae_points:.2f}" in page
