"""The lake: samples and cycles of every asset as Parquet, one Hive partition per asset."""

import fcntl
import hashlib
import io
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

import numpy as np
import polars as pl

from batteryops.errors import DataError, UnknownAssetError
from batteryops.files import first_line, read_table, replacing, write_table
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
_CYCLES_PART: Final = "part-0.parquet"
_SAMPLES_PART: Final = "samples_part"  # column of the stored cycles
_DIGEST_DIGITS: Final = 16
_LOCK: Final = ".lock"
_PARTIAL: Final = ".part.parquet.tmp"  # a leading dot hides it from other readers as well
_STORED_SAMPLES: Final = pl.Schema({k: v for k, v in SAMPLES.items() if k != "asset_id"})
_STORED_CYCLES: Final = pl.Schema(
    {k: v for k, v in CYCLES.items() if k != "asset_id"} | {_SAMPLES_PART: pl.String()}
)
_REMEDY: Final = (
    "delete the partitions of that asset under samples/ and cycles/ and ingest its source again"
)


class Lake:
    """Recordings of many assets in one folder.

    Layout: `cycles/asset_id=B0005/part-0.parquet` and `samples/asset_id=B0005/part-<x>.parquet`,
    asset ids percent-encoded, `asset_id` itself not repeated in the files, as Hive partitions
    have it. A cycle is known by asset and `cycle_index`: writing it again replaces it, so taking
    in a source twice changes nothing, and the order of writes does not matter.

    `<x>` is the start of the file's SHA-256, and the column `samples_part` of the cycles names the
    file that belongs to them. New samples are written beside the old ones; the new cycles then
    take the place of the old in one step, and with them the new samples. So whoever reads, and
    whatever breaks off, an asset is as it was before a write or as it is after one. Writers take
    turns; the samples that no cycles name any more are removed by whoever writes the asset.

    Args:
        root: the lake's folder; made by the first write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def asset_ids(self) -> list[str]:
        """The assets in the lake, sorted."""
        parts = (self._root / CYCLES_FOLDER).glob(f"{_PARTITION}*/{_CYCLES_PART}")
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
            with self._no_writer():  # one may have removed samples whose cycles were just read
                return self._read(chosen, wanted)

    def _read(self, asset_ids: Collection[str], wanted: frozenset[str]) -> Recording:
        stored = {asset_id: _stored(self._cycles_part(asset_id)) for asset_id in asset_ids}
        cycles = _united(
            [
                table.drop(_SAMPLES_PART).insert_column(0, pl.lit(asset_id).alias("asset_id"))
                for asset_id, table in stored.items()
            ],
            what=f"lake {self._root}",
        ).filter(pl.col("kind").is_in(wanted))
        if cycles.is_empty():
            raise DataError(f"lake {self._root}: no cycle of the kinds asked for; {sorted(wanted)}")
        parts = {
            self._samples_part(asset_id, table): asset_id for asset_id, table in stored.items()
        }
        samples = self._samples(parts, wanted, cycles)
        return Recording(samples=samples, cycles=cycles, source=f"lake {self._root}")

    def _samples(
        self, parts: Mapping[Path, str], wanted: frozenset[str], cycles: pl.DataFrame
    ) -> pl.DataFrame:
        """The samples of these cycles, from the assets' files."""
        table = collect_parquet(
            list(parts),
            _STORED_SAMPLES,
            where=None if wanted == wanted_kinds(None) else pl.col("kind").is_in(wanted),
            remedy=_REMEDY,
        )
        starts, lengths = runs(table, [FILE, "cycle_index"])
        asset_of = {str(path): asset_id for path, asset_id in parts.items()}
        found = table[starts].select(
            pl.col(FILE).replace_strict(asset_of, return_dtype=pl.String).alias("asset_id"),
            "cycle_index",
            pl.Series("found", lengths),
        )
        announced = cycles.filter(pl.col("n_samples") > 0).select(*CYCLE_KEY, found="n_samples")
        if not found.equals(announced):
            wrong = next(
                asset_id
                for asset_id in parts.values()
                if not found.filter(asset_id=asset_id).equals(announced.filter(asset_id=asset_id))
            )
            raise DataError(
                f"lake {self._root}: the samples of {wrong} are not those that its "
                f"cycles announce; {_REMEDY}"
            )
        block = np.repeat(np.arange(len(lengths), dtype=np.uint32), lengths)
        return pl.concat([found.select("asset_id")[block], table.drop(FILE)], how="horizontal")

    def _partition(self, folder: str, asset_id: str) -> Path:
        return self._root / folder / f"{_PARTITION}{quote(asset_id, safe='')}"

    def _cycles_part(self, asset_id: str) -> Path:
        return self._partition(CYCLES_FOLDER, asset_id) / _CYCLES_PART

    def _samples_part(self, asset_id: str, stored: pl.DataFrame) -> Path:
        """The file of samples that an asset's stored cycles name."""
        return self._partition(SAMPLES_FOLDER, asset_id) / str(stored[_SAMPLES_PART][0])

    def _write_asset(self, asset_id: str, samples: pl.DataFrame, cycles: pl.DataFrame) -> None:
        cycles_part = self._cycles_part(asset_id)
        if cycles_part.is_file():
            old = _stored(cycles_part)
            kept = old.join(cycles, on="cycle_index", how="anti").drop(_SAMPLES_PART)
            old_samples = collect_parquet(
                [self._samples_part(asset_id, old)], _STORED_SAMPLES, remedy=_REMEDY
            )
            samples = pl.concat(
                [old_samples.drop(FILE).join(kept, on="cycle_index", how="semi"), samples]
            )
            cycles = _united([kept, cycles], what=f"{asset_id} in lake {self._root}")
        samples = samples.sort("cycle_index", "time_s", maintain_order=True, nulls_last=True)
        named = _write_named(samples, self._partition(SAMPLES_FOLDER, asset_id))
        cycles = _arranged(cycles).sort("cycle_index")
        cycles = cycles.with_columns(pl.lit(named.name).alias(_SAMPLES_PART))
        write_table(cycles, cycles_part, partial=_PARTIAL)
        for part in named.parent.glob("part-*.parquet"):
            if part != named:
                part.unlink()

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
    if "cycle_index" in table.columns and _SAMPLES_PART not in table.columns:
        raise DataError(f"{path} names no file of samples: an older form of the lake; {_REMEDY}")
    conform(table, _STORED_CYCLES, what=str(path))
    if table[_SAMPLES_PART].n_unique() != 1 or table[_SAMPLES_PART].has_nulls():
        raise DataError(f"{path}: {_SAMPLES_PART} does not name one file; {_REMEDY}")
    return table


def _write_named(samples: pl.DataFrame, partition: Path) -> Path:
    """Write samples to a file named after its content."""
    buffer = io.BytesIO()
    samples.write_parquet(buffer, compression="zstd")
    content = buffer.getvalue()
    path = partition / f"part-{hashlib.sha256(content).hexdigest()[:_DIGEST_DIGITS]}.parquet"
    with replacing(path, partial=_PARTIAL) as beside:
        beside.write_bytes(content)
    return path


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
