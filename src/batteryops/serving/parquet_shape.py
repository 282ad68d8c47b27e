"""What a Parquet file unfolds to, as it says itself: read before any of it is unfolded.

A reader makes room for a page as its header says, and the sizes in the file's footer need not agree
with the headers. So each page is looked at. Source: the Parquet format's `parquet.thrift`, in
Thrift's compact protocol.
"""

import struct
from dataclasses import dataclass
from typing import Any, Final

from batteryops.serving.arrow_shape import MOST_PARTS

_MAGIC: Final = b"PAR1"
_DEEPEST: Final = 16  # structures in structures; the format has five
_INCREMENTAL: Final = 7  # the encoding DELTA_BYTE_ARRAY
_TRUE, _FALSE, _I8, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = (
    1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13,
)  # fmt: skip
_BYTES: Final = {_DOUBLE: 8, _UUID: 16}
_LONG: Final = 15  # in place of the length of a list that follows

Fields = dict[int, Any]


@dataclass(slots=True)
class ParquetShape:
    """What a file says of itself.

    Args:
        rows: of all row groups.
        unfolded_bytes: of all pages.
    """

    rows: int = 0
    unfolded_bytes: int = 0


def parquet_shape(content: bytes) -> ParquetShape:
    """Look at a file's footer, and at the header of every page.

    Raises:
        ValueError: it is no such file, is made of more than `arrow_shape.MOST_PARTS`, or holds
            texts as differences, of which a page can hold any amount.
    """
    if len(content) < 12 or content[-4:] != _MAGIC:  # noqa: PLR2004 - two magics and a length
        raise ValueError("it does not end as a Parquet file does")
    length = struct.unpack_from("<I", content, len(content) - 8)[0]
    if length > len(content) - 12:
        raise ValueError("its footer begins before it")
    reader = _Thrift(content)
    footer = reader.fields(len(content) - 8 - length)
    shape = ParquetShape()
    for group in _items(footer.get(4)):
        shape.rows += max(_whole(group.get(3)), 0)
        for column in _items(group.get(1)):
            shape.unfolded_bytes += _unfolded(reader, _inner(column, 3))
    shape.rows = max(shape.rows, _whole(footer.get(3)))
    return shape


def _unfolded(reader: "_Thrift", about: Fields) -> int:
    """Bytes of all pages of a column's chunk."""
    at = _whole(about.get(11, about.get(9)))  # the dictionary comes before the data
    end = at + _whole(about.get(7))
    if not 0 < at <= end <= len(reader.content):
        raise ValueError("a column lies outside of the file")
    unfolded = 0
    while at < end:
        page = reader.fields(at)
        if _INCREMENTAL in {_inner(page, 5).get(2), _inner(page, 8).get(4)}:  # version 1, version 2
            raise ValueError(
                "texts are encoded as DELTA_BYTE_ARRAY, which is not read; write them plain or "
                "with a dictionary"
            )
        larger, smaller = _whole(page.get(2)), _whole(page.get(3))
        if larger < 0 or smaller < 0:
            raise ValueError("a page has a negative size")
        unfolded += larger
        at = reader.at + smaller
    return unfolded


def _items(value: object) -> list[Fields]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError("its footer lacks row groups or columns")
    return value


def _inner(fields: Fields, number: int) -> Fields:
    value = fields.get(number)
    return value if isinstance(value, dict) else {}


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError("a size is missing")
    return value


class _Thrift:
    """Reads structures of the compact protocol.

    Args:
        content: in which they are.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0
        """Where the last one ended."""
        self._parts = 0

    def fields(self, at: int) -> Fields:
        """The structure there, its fields by number; texts are left out.

        Raises:
            ValueError: there is none.
        """
        self.at = at
        try:
            return self._struct(0)
        except IndexError as error:
            raise ValueError("a structure ends beyond the file") from error

    def _struct(self, depth: int) -> Fields:
        if depth > _DEEPEST:
            raise ValueError("a structure lies too deep")
        fields: Fields = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            fields[number] = kind == _TRUE if kind in {_TRUE, _FALSE} else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:  # noqa: ANN401 - of any kind
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise ValueError(f"it is made of more than {MOST_PARTS} parts; write larger pages")
        if kind == _STRUCT:
            return self._struct(depth + 1)
        if kind in {_LIST, _SET}:
            head = self._byte()
            count = head >> 4 if head >> 4 != _LONG else self._unsigned()
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind in {_TRUE, _FALSE, _I8}:
            return self._byte()
        if _I8 < kind <= _I64:
            return self._signed()
        if kind == _MAP:
            count = self._unsigned()
            kinds = self._byte() if count else 0
            for _ in range(count):
                self._value(kinds >> 4, depth + 1)
                self._value(kinds & 15, depth + 1)
            return None
        length = self._unsigned() if kind == _BINARY else _BYTES.get(kind)
        if length is None:
            raise ValueError("a field is of no kind that there is")
        self.at += length
        return None

    def _byte(self) -> int:
        byte = self.content[self.at]
        self.at += 1
        return byte

    def _unsigned(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the last one
                return number
            shift += 7
            if shift > 63:  # noqa: PLR2004 - bits
                raise ValueError("a number is too long")

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)
