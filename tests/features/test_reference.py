"""docs/FEATURES.md is what the declarations say."""

from pathlib import Path

import pytest

from batteryops.features.reference import main, page
from batteryops.features.views import VIEWS

PAGE = Path(__file__).parents[2] / "docs" / "FEATURES.md"


def test_the_page_in_the_repository_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run `python -m batteryops.features.reference docs/FEATURES.md`"
    )


def test_the_page_names_every_feature_and_hash() -> None:
    text = page()

    for view in VIEWS.values():
        assert view.schema_hash in text
        for feature in view.features:
            assert f"| `{feature.name}` | {feature.unit} |" in text
            for note in (feature.leaks_label, feature.why_safe):
                assert note is None or f"* `{feature.name}`: {note}." in text


def test_a_heading_without_anything_below_it_is_left_out() -> None:
    summary, partial = (
        page().split(f"## `{name}` ")[1].split("\n## ")[0]
        for name in ("discharge_summary", "partial_window")
    )

    assert "Holds the label:" in summary
    assert "Does not hold the label:" not in summary
    assert "Does not hold the label:" in partial
    assert "\nHolds the label:" not in partial


def test_the_command_writes_the_page_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "FEATURES.md"
    target.write_text("an older page")

    main([str(target)])

    assert target.read_text(encoding="utf-8") == page()
    assert list(tmp_path.iterdir()) == [target]


def test_a_page_that_cannot_be_written_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SystemExit) as refusal:
        main([str(tmp_path / "file" / "FEATURES.md")])

    assert refusal.value.code == 2
    assert "cannot be written" in capsys.readouterr().err
