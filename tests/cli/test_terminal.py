"""What a person sees in the terminal: tables that fit, numbers and nouns that agree."""

import pytest

from batteryops.cli import terminal

COLUMNS = ["asset", "capacity Ah", "what was said of it"]
ROWS = [["B0005", 1.85, "the first of its schedule"], ["B0018", 1.34, "alone"]]


def test_a_table_that_fits_shows_every_column(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    terminal.table("assets", COLUMNS, ROWS, spare=["what was said of it"])
    shown = capsys.readouterr()
    assert "what was said of it" in shown.out
    assert shown.err == ""


def test_a_narrow_terminal_loses_spare_columns_only_and_is_told_which(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    terminal.table("assets", COLUMNS, ROWS, spare=["what was said of it", "asset"])
    shown = capsys.readouterr()
    assert "alone" not in shown.out
    assert "B0018" in shown.out
    assert "1.34" in shown.out
    assert "a wider terminal also shows what was said of it" in shown.err


@pytest.mark.parametrize("width", [30, 47, 60, 120])
def test_no_line_is_wider_than_the_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    terminal.table("assets", COLUMNS, ROWS)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= width


def test_a_heading_wider_than_its_cells_breaks_between_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    terminal.table("assets", ["MAE in SoH points"], [[1.5]])
    lines = [line.strip("┃ ") for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line in {"MAE in", "SoH", "points", "MAE"}] == [
        "MAE in",
        "SoH",
        "points",
    ]


def test_a_narrow_terminal_breaks_text_and_cuts_no_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "66")
    terminal.table(
        "evaluation",
        ["protocol", "by", "MAE Ah", "interval", "R2"],
        [
            ["unseen_schedules", "model", 0.01532, "0.0246 to 0.0623", -0.08853],
            ["", "last measured capacity", 0.2835, "", 0.83],
        ],
    )
    out = capsys.readouterr().out
    for whole in ("unseen_schedules", "0.01532", "0.0246", "0.0623", "-0.08853", "measured"):
        assert whole in out
    assert max(map(len, out.splitlines())) <= 66


def test_what_fits_in_no_way_is_broken_but_not_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "16")
    terminal.table("", ["a", "b"], [[12345678, 87654321]])
    digits = [c for line in capsys.readouterr().out.splitlines() for c in line if c.isdigit()]
    assert sorted(digits) == sorted("1234567887654321")


@pytest.mark.parametrize(("cells", "right"), [(["0.1%", "96.8%"], True), (["1 of 2", "3"], False)])
def test_shares_stand_right_like_numbers(
    cells: list[str],
    right: bool,  # noqa: FBT001, a case of the table above
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    terminal.table("", ["of all trips"], [[cell] for cell in cells])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.endswith(f"{cells[-1]} │") for line in lines) is right


def test_zero_has_no_sign(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table("", ["bias"], [[-0.0]])
    assert "-0" not in capsys.readouterr().out
