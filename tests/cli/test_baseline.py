"""`batteryops baseline` as a person runs it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from batteryops.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quick_config: Path,
    trained_home: Path,
    tmp_path: Path,
) -> Run:
    """Run `batteryops` with these words, in a copy of a home with one trained version."""
    shutil.copytree(trained_home, tmp_path / "home")
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BATTERYOPS_CONFIG", str(quick_config))
    monkeypatch.setenv("COLUMNS", "250")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["batteryops", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_a_baseline_is_fitted_listed_shown_and_used(run: Run, fleet_file: Path) -> None:
    words = ("baseline", "fit", "--source", fleet_file, "--model", 1, "--asset", "EV-0001")
    code, out, err = run(*words, "--first", 5)
    assert code == 0, err
    assert "EV-0001" in out
    assert "trained the model" in err
    code, out, _ = run(*words, "--first", 5, "--json")
    [fitted] = json.loads(out)["baselines"]
    assert (code, fitted["new"], fitted["measurements"]) == (0, False, 5)
    assert "as before" in run(*words, "--first", 5)[2]

    listed = json.loads(run("baseline", "list", "--json")[1])
    assert [one["version"] for one in listed] == [fitted["version"]]
    assert fitted["version"] in run("baseline", "list", "--asset", "EV-0001")[1]
    shown = json.loads(run("baseline", "show", "EV-0001", "--json")[1])
    offsets = [one["measured_ah"] - one["predicted_ah"] for one in shown["cycles"]]
    assert shown["mean_offset_ah"] == pytest.approx(sum(offsets) / 5)
    assert (
        "its measurements" in run("baseline", "show", "EV-0001", "--version", fitted["version"])[1]
    )

    answers = json.loads(run("predict", fleet_file, "--model", 1, "--json")[1])["predictions"]
    assert {one["baseline"] for one in answers} == {None, fitted["version"]}
    plain = json.loads(run("predict", fleet_file, "--model", 1, "--no-baseline", "--json")[1])
    assert {one["baseline"] for one in plain["predictions"]} == {None}
    assert "baseline" in run("predict", fleet_file, "--model", 1)[1]


def test_a_home_without_baselines_says_how_to_make_one(run: Run) -> None:
    code, out, err = run("baseline", "list")
    assert (code, out) == (0, "")
    assert err.endswith("there is none yet; `batteryops baseline fit` makes one\n")
    assert json.loads(run("baseline", "list", "--json")[1]) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("baseline", "show", "EV-0001"), "has no baseline"),
        (("baseline", "list", "--asset", "EV-0001"), "has no baseline"),
        (("baseline", "fit", "--source", "nowhere", "--model", "1"), "does not exist"),
        (("baseline", "fit", "--source", "lake", "--model", "7"), "7"),
        (("baseline", "fit", "--source", "lake", "--model", "1", "--asset", "X"), "no cycles of"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Run, words: tuple[str, ...], told: str
) -> None:
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert told in err
    assert err.count("\n") == 1
