"""Quarantined cycles are kept per data set, whole or not at all, and listed with reasons."""

from pathlib import Path

import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.quality.quarantine import QuarantineStore
from batteryops.quality.report import QUARANTINE

ROWS = pl.DataFrame(
    [
        ("B0042", 4, "false_label", "label 0.09 Ah", 0.09, 1.1),
        ("B0041", 1, "crashed_run", "delivered 0.07 Ah", 0.07, 0.2),
    ],
    schema=QUARANTINE,
    orient="row",
)


def test_what_was_written_is_listed_with_its_reasons(tmp_path: Path) -> None:
    store = QuarantineStore(tmp_path / "quarantine")
    store.write("nasa", ROWS)
    assert store.list().drop("data_set").equals(ROWS.sort("asset_id"))
    assert set(store.list()["data_set"]) == {"nasa"}


def test_listing_can_be_narrowed_to_an_asset_or_a_check(tmp_path: Path) -> None:
    store = QuarantineStore(tmp_path)
    store.write("nasa", ROWS)
    store.write("more", ROWS.head(1))
    assert store.list(asset="B0041")["reason"].to_list() == ["delivered 0.07 Ah"]
    assert store.list(check="false_label")["data_set"].to_list() == ["more", "nasa"]
    assert store.list(asset="B0041", check="false_label").is_empty()


def test_writing_again_replaces_what_was_there(tmp_path: Path) -> None:
    store = QuarantineStore(tmp_path)
    store.write("nasa", ROWS)
    store.write("nasa", ROWS.clear())
    assert store.list().is_empty()
    assert store.names() == ["nasa"]


def test_a_store_that_was_never_written_is_empty(tmp_path: Path) -> None:
    store = QuarantineStore(tmp_path / "nothing")
    assert store.names() == []
    assert store.list().columns == ["data_set", *QUARANTINE]
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", ["../escape", ".hidden", "a/b c", "Messung-ß"])
def test_any_name_stays_inside_the_folder_and_comes_back(tmp_path: Path, name: str) -> None:
    store = QuarantineStore(tmp_path / "quarantine")
    path = store.write(name, ROWS)
    assert path.parent == tmp_path / "quarantine"
    assert store.names() == [name]
    assert set(store.list()["data_set"]) == {name}


def test_an_empty_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name of its data set"):
        QuarantineStore(tmp_path).write("", ROWS)


def test_a_table_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing column reason"):
        QuarantineStore(tmp_path).write("nasa", ROWS.drop("reason"))
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = QuarantineStore(tmp_path)
    path = store.write("nasa", ROWS)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(DataError, match="no space left"):
        store.write("nasa", ROWS.clear())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "nasa.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(DataError, match=r"nasa\.parquet.*check the data again"):
        QuarantineStore(tmp_path).list()
