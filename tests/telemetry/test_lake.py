from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from batteryops.errors import DataError, UnknownAssetError
from batteryops.schema import CYCLES, SAMPLES, Recording
from batteryops.telemetry.lake import Lake


def recording(
    *cycles: tuple[str, int, Sequence[float]], kind: str = "discharge", **further: object
) -> Recording:
    """Cycles as (asset, index, voltages); samples are a second apart."""
    rows = [
        (asset, index, kind, None, float(second), voltage, -2.0, 24.0)
        for asset, index, voltages in sorted(cycles)
        for second, voltage in enumerate(voltages)
    ]
    heads = [
        (asset, index, kind, None, 24.0, len(voltages), 1.5, None, None)
        for asset, index, voltages in sorted(cycles)
    ]
    return Recording(
        samples=pl.DataFrame(rows, schema=SAMPLES, orient="row"),
        cycles=pl.DataFrame(heads, schema=CYCLES, orient="row").with_columns(
            **{name: pl.lit(value) for name, value in further.items()}
        ),
        source="test",
    )


def assert_equal(one: Recording, other: Recording) -> None:
    assert_frame_equal(one.samples, other.samples, check_exact=True)
    assert_frame_equal(one.cycles, other.cycles, check_exact=True)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    written = recording(("EV-1", 2, [4.0, 3.5]), ("EV-1", 4, [3.9]), ("EV-2", 1, [3.75, 3.5, 3.0]))
    lake = Lake(tmp_path / "lake")

    lake.write(written)

    assert lake.asset_ids() == ["EV-1", "EV-2"]
    assert_equal(lake.read(), written)
    assert_equal(Lake(tmp_path / "lake").read(["EV-1"]), recording(
        ("EV-1", 2, [4.0, 3.5]), ("EV-1", 4, [3.9])
    ))  # fmt: skip


def test_the_layout_is_a_hive_partition_per_asset(tmp_path: Path) -> None:
    Lake(tmp_path).write(recording(("EV-1", 2, [4.0, 3.5])))

    assert (tmp_path / "cycles" / "asset_id=EV-1" / "part-0.parquet").is_file()
    samples = pl.scan_parquet(tmp_path / "samples", hive_partitioning=True).collect()
    assert samples.select("asset_id", "voltage_v").rows() == [("EV-1", 4.0), ("EV-1", 3.5)]
    [file] = (tmp_path / "samples" / "asset_id=EV-1").iterdir()
    assert "asset_id" not in pl.read_parquet_schema(file)


def test_taking_in_twice_changes_nothing(tmp_path: Path) -> None:
    written = recording(("EV-1", 1, [4.0, 3.5]), ("EV-2", 1, [3.75]))
    lake = Lake(tmp_path)

    lake.write(written)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    lake.write(written)

    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before


def test_a_cycle_written_again_is_replaced_and_others_are_kept(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(("EV-1", 1, [4.0, 3.5]), ("EV-1", 2, [3.9, 3.8, 3.7])))

    lake.write(recording(("EV-1", 2, [3.0]), ("EV-1", 3, [])))

    assert_equal(
        lake.read(), recording(("EV-1", 1, [4.0, 3.5]), ("EV-1", 2, [3.0]), ("EV-1", 3, []))
    )


@given(
    assets=st.lists(
        st.lists(st.lists(st.floats(2.5, 4.2), max_size=3), min_size=1, max_size=4),
        min_size=1,
        max_size=3,
    ),
    data=st.data(),
)
@settings(max_examples=25)
def test_the_order_and_the_size_of_the_pieces_written_do_not_matter(
    assets: list[list[list[float]]], data: st.DataObject
) -> None:
    cycles = [
        (f"EV {asset}/{len(assets)}", index, voltages)
        for asset, of_asset in enumerate(assets)
        for index, voltages in enumerate(of_asset, start=1)
    ]
    pieces = data.draw(st.lists(st.integers(0, 3), min_size=len(cycles), max_size=len(cycles)))
    order = data.draw(st.permutations(sorted(set(pieces))))

    with TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        for number in order:
            lake.write(
                recording(*(c for c, piece in zip(cycles, pieces, strict=True) if piece == number))
            )

        assert_equal(lake.read(), recording(*cycles))


@pytest.mark.parametrize(
    "asset_id", ["Vehicle 1", "a/b", "../../up", "100%", "%2F", "x=y", ".", "ö", "a*[b]?", "007"]
)
def test_any_asset_id_is_safe_in_a_path(tmp_path: Path, asset_id: str) -> None:
    root = tmp_path / "run=3" / "la[k]e"
    lake = Lake(root)

    lake.write(recording((asset_id, 1, [4.0]), ("EV-1", 1, [3.0])))

    assert lake.asset_ids() == sorted([asset_id, "EV-1"])
    assert_equal(lake.read([asset_id]), recording((asset_id, 1, [4.0])))
    assert {path.parent.parent for path in tmp_path.rglob("*.parquet")} == {
        root / "samples",
        root / "cycles",
    }


def test_kinds_are_chosen(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(("EV-1", 1, [4.0])))
    lake.write(recording(("EV-1", 2, [3.0]), kind="charge"))

    assert_equal(lake.read(kinds=["charge"]), recording(("EV-1", 2, [3.0]), kind="charge"))
    with pytest.raises(DataError, match=r"no cycle of the kinds asked for.*trip"):
        lake.read(kinds=["trip"])


def test_further_columns_are_kept_and_null_where_an_asset_has_none(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(("V-2", 1, [400.0]), kind="trip", dod_pct=14.0))
    lake.write(recording(("EV-1", 1, [4.0])))
    lake.write(recording(("V-2", 2, [401.0]), kind="trip", alpha="yes"))

    cycles = lake.read().cycles

    assert cycles.columns == [*CYCLES, "alpha", "dod_pct"]
    assert cycles.select("asset_id", "cycle_index", "alpha", "dod_pct").rows() == [
        ("EV-1", 1, None, None),
        ("V-2", 1, None, 14.0),
        ("V-2", 2, "yes", None),
    ]


def test_a_further_column_of_two_types_is_refused_and_the_lake_stays(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    first = recording(("V-2", 1, [400.0]), dod_pct=14.0)
    lake.write(first)

    with pytest.raises(DataError, match=r"V-2 in lake .* a column of the cycles has two types"):
        lake.write(recording(("V-2", 2, [400.0]), dod_pct="much"))

    assert_equal(lake.read(), first)


def test_an_unknown_asset_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(("EV-1", 1, [4.0]), ("EV-2", 1, [4.0])))

    with pytest.raises(UnknownAssetError, match="no asset 'EV-9'; it has EV-1, EV-2"):
        lake.read(["EV-1", "EV-9"])


def test_an_empty_lake_says_what_to_do(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "none")

    assert lake.asset_ids() == []
    with pytest.raises(DataError, match="is empty; ingest a source first"):
        lake.read()


def test_samples_without_a_cycle_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    whole = recording(("EV-1", 1, [4.0]), ("EV-1", 2, [4.0]))
    torn = Recording(whole.samples, whole.cycles.head(1), source="torn")

    with pytest.raises(DataError, match="cycle 2 of EV-1 has samples but no row in the cycles"):
        Lake(tmp_path / "lake").write(torn)
    assert not (tmp_path / "lake").exists()


def test_n_samples_is_counted_when_written(tmp_path: Path) -> None:
    two = recording(("EV-1", 1, [4.0, 3.5]))
    wrong = Recording(
        two.samples, two.cycles.with_columns(n_samples=pl.lit(9, pl.Int64)), source="wrong"
    )

    Lake(tmp_path).write(wrong)

    assert Lake(tmp_path).read().cycles["n_samples"].to_list() == [2]


@pytest.mark.parametrize("folder", ["samples", "cycles"])
@pytest.mark.parametrize("content", [b"", b"PAR1 no Parquet PAR1"])
def test_a_corrupt_partition_is_named_with_what_to_do(
    tmp_path: Path, folder: str, content: bytes
) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(("EV-1", 1, [4.0]), ("EV-2", 1, [4.0])))
    [file] = (tmp_path / folder / "asset_id=EV-2").iterdir()
    file.write_bytes(content)

    with pytest.raises(DataError, match=rf"{folder}/asset_id=EV-2/{file.name}"):
        lake.read()
    with pytest.raises(DataError, match="asset_id=EV-2"):
        lake.write(recording(("EV-2", 2, [4.0])))
    assert lake.read(["EV-1"]).asset_ids == ["EV-1"]


def test_a_partition_of_another_table_is_named(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(("EV-1", 1, [4.0])))
    part = tmp_path / "cycles" / "asset_id=EV-1" / "part-0.parquet"
    pl.DataFrame({"speed": [1]}).write_parquet(part)

    with pytest.raises(DataError, match=r"part-0\.parquet: missing columns cycle_index"):
        lake.read()


class Killed(BaseException):
    """As no handler of ours would catch."""


OLD = (("EV-1", 1, [4.0, 3.5]), ("EV-1", 2, [3.0]))
NEW = (("EV-1", 1, [2.0, 1.5]), ("EV-1", 3, [3.25, 3.0]))  # cycle 1 with as many samples
BOTH = (NEW[0], OLD[1], NEW[1])


@pytest.mark.parametrize("method", ["write_bytes", "write_parquet", "replace", "unlink"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_whenever_a_writer_is_killed_an_asset_is_as_before_or_as_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, nth: int, *, after: bool
) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(*OLD, re_published=1))
    before = lake.read()
    owner = pl.DataFrame if method == "write_parquet" else Path
    real = getattr(owner, method)
    calls = 0

    def kill(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            raise Killed
        answer = real(*args, **options)
        if calls == nth:
            raise Killed
        return answer

    with monkeypatch.context() as patched, suppress(Killed):
        patched.setattr(owner, method, kill)
        lake.write(recording(*NEW, re_published=2))

    expected = recording(*BOTH)
    found = lake.read()
    if found.cycles.height == before.cycles.height:
        assert_equal(found, before)
    else:
        assert_frame_equal(found.samples, expected.samples, check_exact=True)
        assert found.cycles["re_published"].to_list() == [2, 1, 2]
    lake.write(recording(*NEW, re_published=2))
    assert_frame_equal(lake.read().samples, expected.samples, check_exact=True)
    assert lake.read().cycles["re_published"].to_list() == [2, 1, 2]
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 3, files  # the lock, the cycles and their samples


def test_samples_that_no_write_left_are_told(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(("EV-1", 1, [4.0, 3.5]), ("EV-2", 1, [4.0, 3.5])))
    [part] = (tmp_path / "samples" / "asset_id=EV-2").iterdir()
    pl.read_parquet(part).head(1).write_parquet(part)

    with pytest.raises(DataError, match="samples of EV-2 are not those that its cycles announce"):
        lake.read()
    assert lake.read(["EV-1"]).samples.height == 2


def test_cycles_that_name_several_files_of_samples_are_told(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(("EV-1", 1, [4.0]), ("EV-1", 2, [4.0])))
    part = tmp_path / "cycles" / "asset_id=EV-1" / "part-0.parquet"
    names = pl.Series("samples_part", ["part-1.parquet", "part-2.parquet"])
    pl.read_parquet(part).with_columns(names).write_parquet(part)

    with pytest.raises(DataError, match="samples_part does not name one file; delete"):
        lake.read()


def test_what_a_killed_writer_left_is_ignored_and_cleared_away(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(("EV-1", 1, [4.0])))
    leftover = tmp_path / "samples" / "asset_id=EV-1" / ".part.parquet.tmp"
    leftover.write_bytes(b"half a file")
    (tmp_path / "cycles" / "asset_id=EV-3").mkdir()  # its file was never finished

    assert_equal(lake.read(), recording(("EV-1", 1, [4.0])))
    lake.write(recording(("EV-2", 1, [3.0])))
    assert not leftover.exists()
    assert lake.asset_ids() == ["EV-1", "EV-2"]


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(DataError, match="cannot be written to"):
        Lake(tmp_path / "file").write(recording(("EV-1", 1, [4.0])))

    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "samples").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        Lake(tmp_path / "lake").write(recording(("EV-1", 1, [4.0])))


def test_writers_at_one_time_take_turns_and_lose_nothing(tmp_path: Path) -> None:
    def write(index: int) -> None:
        Lake(tmp_path).write(recording(("EV-1", index, [4.0, 3.5])))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(1, 9)))

    assert Lake(tmp_path).read().cycles["cycle_index"].to_list() == list(range(1, 9))


def test_a_reader_beside_a_writer_sees_an_asset_before_or_after_a_write(tmp_path: Path) -> None:
    versions = [recording(("EV-1", 1, [4.0] * n), ("EV-1", 2, [3.0])) for n in (1, 2)]
    lake = Lake(tmp_path)
    lake.write(versions[0])

    def write() -> None:
        for turn in range(40):
            lake.write(versions[turn % 2])

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        seen = [lake.read() for _ in range(40)]
        writing.result()

    for one in seen:
        assert one.samples.height == one.cycles["n_samples"].sum()
        assert one.samples.height in {2, 3}


def test_a_lake_copied_without_its_lock_can_be_read(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(("EV-1", 1, [4.0])))
    (tmp_path / ".lock").unlink()

    assert lake.read().asset_ids == ["EV-1"]
    with pytest.raises(DataError, match="no cycle of the kinds asked for"):
        lake.read(kinds=["charge"])


def test_a_lake_of_an_older_form_is_refused_with_what_to_do(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write(recording(("EV-1", 1, [4.0])))
    [cycles] = tmp_path.glob("cycles/*/part-0.parquet")
    pl.read_parquet(cycles).drop("samples_part").write_parquet(cycles)
    with pytest.raises(DataError, match=r"older form of the lake; delete .* and ingest"):
        lake.read()
