"""The lake: samples and cycles of every asset as Parquet, one Hive partition per asset."""

import fcntl
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

import numpy as np
import polars as pl

from batteryops.errors import DataError, UnknownAssetError
from batteryops.files import first_line, read_table, write_table
from batteryops.schema import CYCLE_KEY, CYCLES, SAMPLES, Kind, Recording, conform
from batteryops.telemetry.assembly import (
    FILE,
    check_cycles,
    collect_parquet,
    runs,
    wanted_kinds,
)

SAMPLES_FOLDER: Final = "samples"
CYCLES_FOLDER: Final = "cycles"

_PARTITION: Final = "asset_id="
_PART: Final = "part-0.parquet"
_LOCK: Final = ".lock"
_PARTIAL: Final = ".part-0.parquet.tmp"  # a leading dot hides it from other readers as well
_STORED_SAMPLES: Final = pl.Schema({k: v for k, v in SAMPLES.items() if k != "asset_id"})
_STORED_CYCLES: Final = pl.Schema({k: v for k, v in CYCLES.items() if k != "asset_id"})
_REMEDY: Final = (
    "delete the partitions of that asset under samples/ and cycles/ and ingest its source again"
)


class Lake:
    """Recordings of many assets in one folder.

    Layout: `samples/asset_id=B0005/part-0.parquet` and `cycles/asset_id=B0005/part-0.parquet`,
    asset ids percent-encoded, `asset_id` itself not repeated in the files, as Hive partitions
    have it. A cycle is known by asset and `cycle_index`: writing it again replaces it, so taking
    in a source twice changes nothing, and the order of writes does not matter.

    An asset's files are replaced one after the other, samples first, each in one step. A reader
    takes only samples that a cycle announces, and where their number is not the one announced it
    waits for the writer and reads again, so it sees an asset before or after a write. Writers
    take turns.

    Args:
        root: the lake's folder; made by the first write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def asset_ids(self) -> list[str]:
        """The assets in the lake, sorted."""
        parts = (self._root / CYCLES_FOLDER).glob(f"{_PARTITION}*/{_PART}")
        return sorted(unquote(path.parent.name.removeprefix(_PARTITION)) for path in parts)

    def write(self, recording: Recording) -> None:
        """Take in a recording: its cycles replace those of the same asset and index.

        Columns of the cycles beyond `CYCLES` are kept; `n_samples` is counted anew.

        Raises:
            DataError: samples without a cycle, a cycle that occurs twice, a further column of
                another type than the lake has it in, or a folder that cannot be written to.
                Assets written before the refusal are complete, the others as they were.
        """
        check_cycles(recording.cycles, what=recording.source)
        counts = recording.samples.group_by(CYCLE_KEY).agg(pl.len().cast(pl.Int64).alias("counted"))
        cycles = recording.cycles.join(counts, on=CYCLE_KEY, how="left", maintain_order="left")
        if cycles["counted"].count() != counts.height:
            asset_id, cycle_index = (
                counts.join(cycles, on=CYCLE_KEY, how="anti").sort(CYCLE_KEY).row(0)[:2]
            )
            raise DataError(
                f"{recording.source}: cycle {cycle_index} of {asset_id} has samples but no row "
                "in the cycles; expected both"
            )
        cycles = cycles.with_columns(pl.col("counted").fill_null(0).alias("n_samples"))
        samples_of = recording.samples.partition_by("asset_id", as_dict=True, include_key=False)
        cycles_of = cycles.drop("counted").partition_by("asset_id", as_dict=True, include_key=False)
        none = pl.DataFrame(schema=_STORED_SAMPLES)
        with self._turn():
            for (asset_id,), new in sorted(cycles_of.items()):
                self._write_asset(str(asset_id), samples_of.get((asset_id,), none), new)

    def read(
        self, asset_ids: Collection[str] | None = None, kinds: Collection[Kind] | None = None
    ) -> Recording:
        """Read assets from the lake, sorted by asset, cycle and time.

        Args:
            asset_ids: which assets, all when None.
            kinds: which kinds of cycle, all when None.

        Returns:
            Their samples and cycles; columns of the cycles beyond `CYCLES` follow by name, null
            where an asset has no such column.

        Raises:
            UnknownAssetError: an asset that is not in the lake.
            DataError: an empty lake, no cycle of the kinds asked for, or a file that is corrupt.
        """
        wanted = wanted_kinds(kinds)
        known = self.asset_ids()
        if not known:
            raise DataError(f"lake {self._root} is empty; ingest a source first")
        chosen = known if asset_ids is None else sorted(set(asset_ids))
        unknown = sorted(set(chosen) - set(known))
        if unknown:
            raise UnknownAssetError(
                f"lake {self._root} has no asset {', '.join(map(repr, unknown))}; "
                f"it has {', '.join(known)}"
            )
        try:
            return self._read(chosen, wanted)
        except DataError:
            with self._no_writer():  # there may have been one between an asset's two files
                return self._read(chosen, wanted)

    def _read(self, asset_ids: Collection[str], wanted: frozenset[str]) -> Recording:
        cycles = self._cycles(asset_ids, wanted)
        samples, torn = self._samples(asset_ids, wanted, cycles)
        if torn is not None:
            raise DataError(
                f"lake {self._root}: the samples of {torn} are not those that its cycles "
                f"announce, as after a write cut off; ingest its source again, or {_REMEDY}"
            )
        return Recording(samples=samples, cycles=cycles, source=f"lake {self._root}")

    def _part(self, folder: str, asset_id: str) -> Path:
        return self._root / folder / f"{_PARTITION}{quote(asset_id, safe='')}" / _PART

    def _cycles(self, asset_ids: Collection[str], wanted: frozenset[str]) -> pl.DataFrame:
        tables = [
            _stored(self._part(CYCLES_FOLDER, asset_id)).select(
                pl.lit(asset_id).alias("asset_id"), pl.all()
            )
            for asset_id in asset_ids
        ]
        cycles = _united(tables, what=f"lake {self._root}").filter(pl.col("kind").is_in(wanted))
        if cycles.is_empty():
            raise DataError(f"lake {self._root}: no cycle of the kinds asked for; {sorted(wanted)}")
        return cycles

    def _samples(
        self, asset_ids: Collection[str], wanted: frozenset[str], cycles: pl.DataFrame
    ) -> tuple[pl.DataFrame, str | None]:
        """Samples of these cycles, and the first asset where they are not as announced."""
        asset_of = {str(self._part(SAMPLES_FOLDER, name)): name for name in asset_ids}
        table = collect_parquet(
            [Path(path) for path in asset_of],
            _STORED_SAMPLES,
            where=None if wanted == wanted_kinds(None) else pl.col("kind").is_in(wanted),
            remedy=_REMEDY,
        )
        starts, lengths = runs(table, [FILE, "cycle_index"])
        found = table[starts].select(
            pl.col(FILE).replace_strict(asset_of, return_dtype=pl.String).alias("asset_id"),
            "cycle_index",
            pl.Series("found", lengths),
        )
        announced = cycles.join(found, on=CYCLE_KEY, how="left", maintain_order="left")
        torn = announced.filter(pl.col("found").fill_null(0) != pl.col("n_samples"))
        if not torn.is_empty():
            return table, str(torn["asset_id"][0])
        block = np.repeat(np.arange(len(lengths), dtype=np.uint32), lengths)
        samples = pl.concat([found.select("asset_id")[block], table.drop(FILE)], how="horizontal")
        if announced["found"].count() != found.height:  # samples written, their cycles not yet
            samples = samples.join(cycles, on=CYCLE_KEY, how="semi", maintain_order="left")
        return samples, None

    def _write_asset(self, asset_id: str, samples: pl.DataFrame, cycles: pl.DataFrame) -> None:
        samples_part = self._part(SAMPLES_FOLDER, asset_id)
        cycles_part = self._part(CYCLES_FOLDER, asset_id)
        if cycles_part.is_file():
            old = _stored(cycles_part)
            kept = old.join(cycles, on="cycle_index", how="anti")
            old_samples = collect_parquet([samples_part], _STORED_SAMPLES, remedy=_REMEDY)
            samples = pl.concat(
                [old_samples.drop(FILE).join(kept, on="cycle_index", how="semi"), samples]
            )
            cycles = _united([kept, cycles], what=f"{asset_id} in lake {self._root}")
        order = ("cycle_index", "time_s")
        in_order = samples.sort(order, maintain_order=True, nulls_last=True)
        write_table(in_order, samples_part, partial=_PARTIAL)
        write_table(_arranged(cycles).sort("cycle_index"), cycles_part, partial=_PARTIAL)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lake's lock, and clear away what a killed writer left."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            lock = (self._root / _LOCK).open("w")
        except OSError as error:
            raise DataError(f"lake {self._root}: cannot be written to ({error})") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for leftover in self._root.glob(f"*/{_PARTITION}*/{_PARTIAL}"):
                leftover.unlink()
            yield

    @contextmanager
    def _no_writer(self) -> Iterator[None]:
        """Hold writers off while reading; a lake without a lock has none."""
        try:
            lock = (self._root / _LOCK).open()
        except OSError:
            yield
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield


def _stored(path: Path) -> pl.DataFrame:
    table = read_table(path, remedy=_REMEDY)
    conform(table, _STORED_CYCLES, what=str(path))
    return table


def _united(tables: Collection[pl.DataFrame], *, what: str) -> pl.DataFrame:
    """Rows of all tables; a column that one has not is null there."""
    try:
        return _arranged(pl.concat(tables, how="diagonal"))
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{what}: a column of the cycles has two types ({first_line(error)})"
        ) from error


def _arranged(cycles: pl.DataFrame) -> pl.DataFrame:
    """Columns of `CYCLES` first, further ones by name: whatever the order of writes."""
    further = sorted(set(cycles.columns) - set(CYCLES))
    return cycles.select(*(name for name in CYCLES if name in cycles.columns), *further)
