import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from batteryops.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `batteryops packs` with these words: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["batteryops", "packs", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def write_packs(folder: Path, soh_points: dict[str, float]) -> Path:
    """Packs of linear cells, 1 V over their capacity, charged at 20 A of a rating of 100 Ah."""
    folder.mkdir()
    for name, soh in soh_points.items():
        time_s = np.arange(0, 15_000, 10)
        volts = 3.4 + time_s * 20.0 / 3600.0 / soh
        pl.DataFrame(
            {
                "segment": 1,
                "sample": time_s,
                "i_load_a": -20.0,
                "v_cell_mean": volts,
                "v_cell_max": volts,
            }
        ).write_parquet(folder / f"{name}.parquet")
    listed = {"vehicle": list(soh_points), "capacity_measured_ah": list(soh_points.values())}
    pl.DataFrame(listed).with_columns(rated_capacity_ah=100.0).write_csv(folder / "vehicles.csv")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_packs(
        tmp_path / "packs",
        {f"van_{n}": soh for n, soh in enumerate([78.0, 84.0, 91.0, 95.0, 99.0])},
    )


def test_a_folder_is_evaluated_with_each_pack_left_out(run: Run, folder: Path) -> None:
    code, out, _ = run("evaluate", folder, "--json")

    document: dict[str, Any] = json.loads(out)
    assert code == 0
    assert document["protocol"] == "unseen_packs"
    assert document["metrics"]["n_packs"] == 5
    assert document["metrics"]["mae_points"] == pytest.approx(0.0, abs=1e-6)
    assert document["baselines"]["published"]["mae_points"] == 3.2
    assert [one["asset_id"] for one in document["packs"]] == [f"van_{n}" for n in range(5)]


def test_a_person_sees_packs_baselines_and_each_segment(run: Run, folder: Path) -> None:
    code, out, err = run("evaluate", folder, "--without", "van_4", "--rated", "van_0=90")

    assert code == 1
    assert "4 packs with a measured capacity" in err
    code, out, err = run("evaluate", folder, "--rated", "van_0=90")
    assert code == 0
    for words in ("van_4", "mean of the training packs", "each candidate segment", "3.65"):
        assert words in out
    assert "van_0: rated at 90 Ah as asked" in err


def test_packs_of_one_folder_are_judged_by_those_of_another(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    test = write_packs(tmp_path / "test", {"bus": 88.0})

    code, out, _ = run("evaluate", "--train", folder, "--test", test, "--json")

    assert code == 0
    (pack,) = json.loads(out)["packs"]
    assert pack["soh_points"] == pytest.approx(88.0, abs=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate"],
        ["evaluate", "--train", "somewhere"],
        ["evaluate", "somewhere", "--test", "elsewhere"],
        ["evaluate", "somewhere", "--rated", "van_0"],
    ],
)
def test_wrong_use_exits_2(run: Run, words: list[str]) -> None:
    code, _, err = run(*words)

    assert code == 2
    assert "Invalid value" in err


def test_a_folder_that_is_not_there_exits_1(run: Run, tmp_path: Path) -> None:
    code, _, err = run("evaluate", tmp_path / "nowhere")

    assert code == 1
    assert err.startswith("error: ")
    assert "no such folder" in err
