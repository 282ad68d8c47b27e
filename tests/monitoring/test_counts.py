"""Counts: they add up exactly, in any order, in memory and from files."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.drift_detection import detect
from batteryops.monitoring.reference import Reference

RNG = np.random.default_rng(11)
NAMES = ["a", "b"]


def rows(n: int, seed: int) -> pl.DataFrame:
    """A table with NaN, infinities, a heavy value, assets and strata."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    a[rng.random(n) < 0.05] = np.nan
    a[rng.random(n) < 0.01] = np.inf
    return pl.DataFrame(
        {
            "asset_id": [f"EV-{number}" for number in rng.integers(0, 40, size=n)],
            "a": a,
            "b": np.where(rng.random(n) < 0.3, 0.0, rng.uniform(size=n)),
            "p": rng.normal(size=n),
            "stratum": rng.choice(["x|cold", "x|hot"], size=n),
        }
    )


TRAINING = rows(700, 1)
REFERENCE = Reference.fit(
    TRAINING, NAMES, strata=TRAINING["stratum"], predictions=TRAINING["p"].to_numpy()
)
CURRENT = rows(400, 2)


def count(table: pl.DataFrame) -> Counts:
    return Counts.of(REFERENCE, table, strata=table["stratum"], predictions=table["p"].to_numpy())


@given(
    cuts=st.lists(st.integers(0, CURRENT.height), max_size=6),
    seed=st.integers(0, 1000),
)
def test_any_split_in_any_order_gives_the_very_same_report(cuts: list[int], seed: int) -> None:
    shuffled = CURRENT.sample(fraction=1.0, shuffle=True, seed=seed)
    ends = sorted({0, *cuts, CURRENT.height})
    parts = [count(shuffled[first:last]) for first, last in pairwise(ends)]
    order = np.random.default_rng(seed).permutation(len(parts))
    together = parts[order[0]]
    for place in order[1:]:
        together += parts[place]
    whole = count(CURRENT)
    assert together.to_json() == whole.to_json()
    assert detect(REFERENCE, together).to_json() == detect(REFERENCE, whole).to_json()


def test_counts_survive_json_exactly() -> None:
    whole = count(CURRENT)
    text = json.dumps(whole.to_json())
    assert Counts.from_json(json.loads(text), REFERENCE).to_json() == whole.to_json()


def test_strata_add_up_to_all_rows() -> None:
    tally = count(CURRENT).tallies["a"]
    assert set(tally.strata) == {"x|cold", "x|hot"}
    assert np.sum([*tally.strata.values()], axis=0).tolist() == tally.cells.tolist()
    assert tally.groups is not None
    assert tally.groups.sum() == CURRENT.height
    assert tally.infinite == CURRENT["a"].is_infinite().sum()


def test_rows_that_lack_a_column_are_counted_as_missing() -> None:
    without = count(CURRENT.drop("b"))
    assert without.tallies["b"].absent == without.tallies["b"].missing == 400
    both = without + count(CURRENT)
    assert (both.tallies["b"].absent, both.tallies["b"].rows) == (400, 800)


def test_columns_may_stand_in_any_order_and_as_any_numbers() -> None:
    plain = CURRENT.with_columns(b=pl.Series(range(400)))
    other = plain.select("p", pl.col("b").cast(pl.Int16), "stratum", "a", "asset_id")
    assert count(other).to_json() == count(plain).to_json()


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_file_in_pieces_counts_as_the_table_does(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"current[1]{suffix}"
    if suffix == ".csv":
        CURRENT.write_csv(file)
    else:
        CURRENT.write_parquet(file, row_group_size=90)
    scanned = Counts.scan(
        REFERENCE, file, strata=lambda piece: piece["stratum"], prediction="p", chunk_rows=70
    )
    assert scanned.to_json() == count(CURRENT).to_json()
    plain = Counts.scan(REFERENCE, file, chunk_rows=57)  # leaves one row for the last piece
    assert plain.to_json() == Counts.of(REFERENCE, CURRENT).to_json()


def test_files_that_cannot_be_counted_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        Counts.scan(REFERENCE, tmp_path / "none.parquet")
    CURRENT.head(0).write_parquet(tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="no rows"):
        Counts.scan(REFERENCE, tmp_path / "empty.parquet")
    CURRENT.select("asset_id", "p").write_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="none of the features a, b; it has asset_id, p"):
        Counts.scan(REFERENCE, tmp_path / "other.parquet")
    with pytest.raises(DataError, match="the table has none of the features"):
        Counts.of(REFERENCE, CURRENT.select("p"))
    (tmp_path / "odd.parquet").write_bytes(b"PAR1 and then nothing PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        Counts.scan(REFERENCE, tmp_path / "odd.parquet")
    CURRENT.with_columns(b=pl.lit("high")).write_csv(tmp_path / "words.csv")
    with pytest.raises(DataError, match="feature b is String, expected numbers"):
        Counts.scan(REFERENCE, tmp_path / "words.csv")


def test_a_word_late_in_a_csv_is_refused_too(tmp_path: Path) -> None:
    lines = ["a,b", *["1.5,2"] * 3000, "1.5,high"]
    (tmp_path / "late.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="feature b is String"):
        Counts.scan(REFERENCE, tmp_path / "late.csv", chunk_rows=100)


def test_strata_and_predictions_are_one_per_row() -> None:
    with pytest.raises(DataError, match="3 strata for 400 rows"):
        Counts.of(REFERENCE, CURRENT, strata=pl.Series(["x"] * 3))
    with pytest.raises(DataError, match="predictions have shape"):
        Counts.of(REFERENCE, CURRENT, predictions=[1.0, 2.0])
    with pytest.raises(DataError, match="predictions are not numbers"):
        Counts.of(REFERENCE, CURRENT, predictions=["high"] * 400)


def test_counts_of_another_reference_do_not_mix() -> None:
    other = Reference.fit(CURRENT, NAMES)
    with pytest.raises(DataError, match="do not add up"):
        Counts.of(other, CURRENT) + count(CURRENT)
    with pytest.raises(DataError, match="cannot be compared"):
        detect(other, count(CURRENT))
    with pytest.raises(DataError, match="counts of reference"):
        Counts.from_json(count(CURRENT).to_json(), other)
    with pytest.raises(DataError, match="no counts"):
        Counts.from_json({"rows": 1}, REFERENCE)


def test_the_threads_of_a_large_table_count_as_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = count(CURRENT).to_json()
    monkeypatch.setattr("batteryops.monitoring.columns._WORTH_THREADS", 1)
    assert count(CURRENT).to_json() == alone
