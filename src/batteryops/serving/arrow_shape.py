"""What an Arrow IPC stream unfolds to, as it says itself: read before any of it is unfolded.

A compressed buffer begins with its uncompressed length, which is what a reader makes room for: a
few kilobytes can ask for any amount of memory. Source: the Arrow columnar format, "IPC Streaming
Format" and "Compression", and `Message.fbs`; messages are tables of FlatBuffers.
"""

import struct
from dataclasses import dataclass
from typing import Final

END: Final = b"\xff\xff\xff\xff\0\0\0\0"
"""Ends a stream."""

MOST_PARTS: Final = 1_000_000
"""Messages, columns and buffers that a table may be made of."""

_CONTINUES: Final = 0xFFFFFFFF
_SCHEMA, _DICTIONARY, _RECORDS = 1, 2, 3  # kinds of messages
_AS_IT_IS: Final = -1  # in place of the length of a buffer that is not compressed after all


@dataclass(slots=True)
class ArrowShape:
    """What a stream says of itself.

    Args:
        schema_end: where the message with its schema ends, in bytes.
        rows: of all record batches; more where one column says so.
        unfolded_bytes: of all buffers.
    """

    schema_end: int = 0
    rows: int = 0
    unfolded_bytes: int = 0


def arrow_shape(content: bytes) -> ArrowShape:
    """Look at every message of a stream.

    Raises:
        ValueError: it is no such stream, or is made of more than `MOST_PARTS`.
    """
    shape, parts, at = ArrowShape(), 0, 0
    most_values = 0
    while at + 4 <= len(content):
        length = _number("<I", content, at)
        at += 4
        if length == _CONTINUES:
            length = _number("<I", content, at)
            at += 4
        if length == 0:
            break
        body = at + length
        message = _root(content, at)
        kind = _scalar("<B", content, message, 1)
        body_length = _scalar("<q", content, message, 3)
        if body_length < 0 or body + body_length > len(content):
            raise ValueError("a message ends beyond the stream")
        header = _reference(content, message, 2)
        if kind == _SCHEMA:
            shape.schema_end = body + body_length
        elif kind in {_DICTIONARY, _RECORDS}:
            batch = header if kind == _RECORDS else _reference(content, header, 1)
            if kind == _RECORDS:
                shape.rows += max(_scalar("<q", content, batch, 0), 0)
            values, unfolded, n_buffers = _batch(content, batch, body)
            most_values = max(most_values, values)
            shape.unfolded_bytes += unfolded
            parts += n_buffers
        parts += 1
        if parts > MOST_PARTS:
            raise ValueError(f"it is made of more than {MOST_PARTS} parts; write fewer batches")
        at = body + body_length
    if not shape.schema_end:
        raise ValueError("it has no schema")
    shape.rows = max(shape.rows, most_values)
    return shape


def _batch(content: bytes, batch: int, body: int) -> tuple[int, int, int]:
    """Of one record batch: values of its longest column, bytes, and how many parts it has."""
    nodes, n_nodes = _vector(content, batch, 1)
    buffers, n_buffers = _vector(content, batch, 2)
    if n_nodes + n_buffers > MOST_PARTS:
        raise ValueError(f"it is made of more than {MOST_PARTS} parts; write fewer batches")
    values = max((_number("<q", content, nodes + 16 * one) for one in range(n_nodes)), default=0)
    is_compressed = _field(content, batch, 3) is not None
    unfolded = 0
    for one in range(n_buffers):
        at, length = (_number("<q", content, buffers + 16 * one + half) for half in (0, 8))
        if length < 0:
            raise ValueError("a buffer has a negative length")
        if is_compressed and length:
            told = _number("<q", content, body + at)
            length = length if told == _AS_IT_IS else told
            if length < 0:
                raise ValueError("a buffer has a negative length")
        unfolded += length
    return values, unfolded, n_nodes + n_buffers


def _number(form: str, content: bytes, at: int) -> int:
    if at < 0:
        raise ValueError("it points before its beginning")
    try:
        number: int = struct.unpack_from(form, content, at)[0]
    except struct.error as error:
        raise ValueError("it points beyond its end") from error
    return number


def _root(content: bytes, at: int) -> int:
    return at + _number("<I", content, at)


def _field(content: bytes, table: int, number: int) -> int | None:
    """Where a field of a table stands; None where it is left out."""
    directory = table - _number("<i", content, table)
    if 4 + 2 * number >= _number("<H", content, directory):
        return None
    offset = _number("<H", content, directory + 4 + 2 * number)
    return table + offset if offset else None


def _scalar(form: str, content: bytes, table: int, number: int) -> int:
    at = _field(content, table, number)
    return 0 if at is None else _number(form, content, at)


def _reference(content: bytes, table: int, number: int) -> int:
    """The table that a field refers to."""
    at = _field(content, table, number)
    if at is None:
        raise ValueError("a message lacks what it should hold")
    return at + _number("<I", content, at)


def _vector(content: bytes, table: int, number: int) -> tuple[int, int]:
    """Where the elements of a vector begin, and how many there are."""
    at = _field(content, table, number)
    if at is None:
        return 0, 0
    at += _number("<I", content, at)
    return at + 4, _number("<I", content, at)
