"""What compressed tables say that they unfold to, without unfolding them."""

import io
import struct

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.serving import arrow_shape as arrow_module
from batteryops.serving import parquet_shape as parquet_module
from batteryops.serving.arrow_shape import END, arrow_shape
from batteryops.serving.parquet_shape import parquet_shape

ROWS = 5000
NAMES = [f"EV-{number:04}" for number in range(ROWS)]
TABLE = pl.DataFrame(
    {
        "vehicle_id": NAMES,
        "kind": pl.Series([f"kind {number % 7}" for number in range(ROWS)], dtype=pl.Categorical),
        "volts": [3.5 + number / ROWS for number in range(ROWS)],
        "cycle": pl.Series(range(ROWS), dtype=pl.Int32),
        "missing": pl.Series([None] * ROWS, dtype=pl.Null),
        "some": [None if number % 3 else 1.0 for number in range(ROWS)],
    }
)
NUMBERS_BYTES = ROWS * (8 + 4 + 8)


def arrow(table: pl.DataFrame, compression: str, level: pl.CompatLevel | None = None) -> bytes:
    file = io.BytesIO()
    table.write_ipc_stream(file, compression=compression, compat_level=level)  # type: ignore[call-overload]  # names of codecs
    return file.getvalue()


def parquet(table: pl.DataFrame, compression: str, **more: object) -> bytes:
    file = io.BytesIO()
    table.write_parquet(file, compression=compression, **more)  # type: ignore[arg-type]  # as it takes them
    return file.getvalue()


@pytest.mark.parametrize("level", [None, pl.CompatLevel.oldest()])
@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_an_arrow_stream_unfolds_to_what_it_is_uncompressed(
    compression: str, level: pl.CompatLevel | None
) -> None:
    plain, packed = arrow(TABLE, "uncompressed", level), arrow(TABLE, compression, level)
    told = arrow_shape(plain)
    assert told.rows == ROWS
    assert NUMBERS_BYTES + len("".join(NAMES)) < told.unfolded_bytes < len(plain)
    assert len(packed) < len(plain)
    again = arrow_shape(packed)
    assert (again.rows, again.unfolded_bytes) == (told.rows, told.unfolded_bytes)


def test_a_stream_cut_off_after_its_schema_has_that_schema_and_no_rows() -> None:
    content = arrow(TABLE, "zstd")
    head = content[: arrow_shape(content).schema_end] + END
    assert pl.read_ipc_stream(io.BytesIO(head)).schema == TABLE.schema
    assert arrow_shape(head).rows == 0


def test_rows_of_all_batches_of_a_stream_count() -> None:
    content = arrow(TABLE.drop("kind"), "lz4")
    start, end = arrow_shape(content).schema_end, len(content) - len(END)
    assert content[end:] == END
    told = arrow_shape(content[:end] + 2 * content[start:end] + END)
    assert told.rows == 3 * ROWS
    assert told.unfolded_bytes == 3 * arrow_shape(content).unfolded_bytes


def test_what_a_buffer_says_counts_whatever_is_in_it() -> None:
    content = bytearray(arrow(pl.DataFrame({"volts": [1.0] * ROWS}), "zstd"))
    at = content.index(struct.pack("<q", 8 * ROWS), arrow_shape(bytes(content)).schema_end)
    struct.pack_into("<q", content, at, 1 << 40)
    assert arrow_shape(bytes(content)).unfolded_bytes >= 1 << 40
    struct.pack_into("<q", content, at, -(1 << 40))
    with pytest.raises(ValueError, match="negative"):
        arrow_shape(bytes(content))


@pytest.mark.parametrize("compression", ["lz4", "zstd", "snappy", "gzip", "brotli"])
def test_a_parquet_file_unfolds_to_what_it_is_uncompressed(compression: str) -> None:
    plain, packed = parquet(TABLE, "uncompressed"), parquet(TABLE, compression)
    told = parquet_shape(plain)
    assert told.rows == ROWS
    assert len("".join(NAMES)) < told.unfolded_bytes < len(plain)
    assert len(packed) < len(plain)
    assert parquet_shape(packed) == told


def test_row_groups_and_small_pages_add_up() -> None:
    told = parquet_shape(parquet(TABLE, "zstd", row_group_size=700, data_page_size=1000))
    assert told.rows == ROWS
    assert told.unfolded_bytes > len("".join(NAMES))


def test_texts_as_differences_are_refused() -> None:
    """Of them a page of a few bytes can hold gigabytes."""
    content = parquet(TABLE.select("vehicle_id"), "zstd")
    rows_plain = b"\x15\x90\x4e\x15\x00"  # in the page's header: 5000 values, encoding 0
    incremental = content.replace(rows_plain, b"\x15\x90\x4e\x15\x0e", 1)  # encoding 7
    assert parquet_shape(content).rows == ROWS
    with pytest.raises(ValueError, match="DELTA_BYTE_ARRAY"):
        parquet_shape(incremental)


def test_what_is_made_of_too_many_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (arrow_module, parquet_module):
        monkeypatch.setattr(module, "MOST_PARTS", 10)
    for look, content in (
        (arrow_shape, arrow(TABLE, "lz4")),
        (parquet_shape, parquet(TABLE, "lz4")),
    ):
        with pytest.raises(ValueError, match="more than 10 parts"):
            look(content)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1\0\0\0\0PAR1", b"\xff" * 64, END, END * 9])
def test_what_is_no_table_is_refused(content: bytes) -> None:
    for look in (arrow_shape, parquet_shape):
        with pytest.raises(ValueError, match=" "):
            look(content)


@given(st.data())
def test_whatever_is_changed_it_is_looked_at_or_refused(data: st.DataObject) -> None:
    small = TABLE.head(20)
    for look, whole in (
        (arrow_shape, arrow(small, "zstd")),
        (parquet_shape, parquet(small, "zstd")),
    ):
        content = bytearray(whole)
        for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
            content[at] = data.draw(st.integers(0, 255))
        content = content[: data.draw(st.integers(0, len(content)))]
        try:
            told = look(bytes(content))
        except ValueError:
            continue
        assert told.rows >= 0
        assert told.unfolded_bytes >= 0
