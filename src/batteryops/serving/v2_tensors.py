"""Tensors of the Open Inference Protocol, as JSON and as Triton's binary extension has them.

A request is one JSON object; where the header `Inference-Header-Content-Length` is sent, it is that
many bytes long, and the data of those inputs that say `binary_data_size` follow it in their order,
little-endian, row-major, each element of `BYTES` after its length in four bytes. Answers likewise.
Sources: the Open Inference Protocol's REST specification, and "Binary tensor data" among the
protocol extensions of the Triton Inference Server.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from batteryops.serving.body import too_large
from batteryops.serving.problems import ProblemError, ProblemType

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
MALFORMED_INFERENCE: Final = ProblemType(
    "malformed-inference", HTTPStatus.BAD_REQUEST, "The body is no request of the protocol"
)
UNKNOWN_MODEL: Final = ProblemType(
    "unknown-model", HTTPStatus.NOT_FOUND, "No model of that name and version is in service"
)

_NUMBERS: Final[Mapping[str, str]] = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip
_SIZE: Final = struct.Struct("<I")
_MOST_DIMENSIONS: Final = 3


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor that was sent.

    Args:
        name: of the input.
        shape: as it was given.
        values: numbers, in that shape, or the texts of `BYTES`, flat.
    """

    name: str
    shape: tuple[int, ...]
    values: NDArray[Any] | list[str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that is asked for.

    Args:
        name: of the output.
        binary: send it after the JSON.
    """

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class Inference:
    """A request for inference.

    Args:
        name: what the client calls it; None where it does not.
        inputs: by name.
        outputs: those that are asked for; None for all of them.
        binary: send outputs after the JSON where nothing else is said.
    """

    name: str | None
    inputs: Mapping[str, Tensor]
    outputs: tuple[Wanted, ...] | None
    binary: bool


def read_inference(content: bytes, header_length: bytes | None, most_json: int) -> Inference:
    """Read a request.

    Args:
        content: the body.
        header_length: of the JSON in it, where the header says so.
        most_json: bytes that it may have.

    Raises:
        ProblemError: saying what is wrong with it.
    """
    length = len(content)
    if header_length is not None:
        if not header_length.isdigit() or int(header_length) > length:
            raise _malformed(
                f"{HEADER_LENGTH} is {header_length.decode('latin-1')[:20]!r}, "
                f"expected at most the body's {length} bytes"
            )
        length = int(header_length)
    if length > most_json:
        raise too_large(most_json, "send data in binary, or the rows in several requests")
    try:
        document = orjson.loads(content[:length])
    except orjson.JSONDecodeError as error:
        raise _malformed(f"the request cannot be read as JSON: {error}") from error
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
        raise _malformed('expected an object with "inputs", an array of tensors')
    name = document.get("id")
    if not isinstance(name, str | None):
        raise _malformed('expected "id" to be a string')
    tensors: dict[str, Tensor] = {}
    rest = memoryview(content)[length:]
    for one in inputs:
        tensor, rest = _tensor(one, rest)
        if tensor.name in tensors:
            raise _malformed(f"input {tensor.name!r} is given twice")
        tensors[tensor.name] = tensor
    if rest:
        raise _malformed(f"{len(rest)} bytes follow the last input, expected none")
    return Inference(
        name,
        tensors,
        _wanted(document.get("outputs"), _parameters(document)),
        _parameters(document).get("binary_data_output") is True,
    )


def write_inference(
    told: Mapping[str, Any],
    outputs: Mapping[str, NDArray[np.float64] | Sequence[str]],
    asked: Inference,
) -> tuple[bytes, int | None]:
    """Write an answer.

    Args:
        told: what stands before the outputs.
        outputs: all there are, by name: numbers are FP64 (NaN where there is none), texts BYTES.
        asked: which of them, and how.

    Returns:
        The body, and how long the JSON in it is; None where that is all of it.

    Raises:
        ProblemError: an output is asked for that there is not.
    """
    wanted = asked.outputs or tuple(Wanted(name, asked.binary) for name in outputs)
    entries: list[dict[str, Any]] = []
    tails: list[bytes] = []
    for one in wanted:
        if one.name not in outputs:
            raise _malformed(
                f"there is no output {one.name[:128]!r}; there are {', '.join(outputs)}"
            )
        values = outputs[one.name]
        numbers = isinstance(values, np.ndarray)
        entry: dict[str, Any] = {
            "name": one.name,
            "datatype": "FP64" if numbers else "BYTES",
            "shape": [len(values)],
        }
        if one.binary:
            tail = (
                values.astype("<f8").tobytes()
                if isinstance(values, np.ndarray)
                else _packed(values)
            )
            entry["parameters"] = {"binary_data_size": len(tail)}
            tails.append(tail)
        else:
            entry["data"] = values if numbers else list(values)
        entries.append(entry)
    header = orjson.dumps({**told, "outputs": entries}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tails:
        return header, None
    return b"".join([header, *tails]), len(header)


def _tensor(entry: Mapping[str, Any], rest: memoryview) -> tuple[Tensor, memoryview]:
    """One input, and what follows it of the binary data."""
    name, kind, shape = (entry.get(key) for key in ("name", "datatype", "shape"))
    if not isinstance(name, str):
        raise _malformed("an input has no name")
    shown = name[:128]
    if not (
        isinstance(shape, list)
        and 1 <= len(shape) <= _MOST_DIMENSIONS
        and all(type(size) is int and 0 <= size < 2**31 for size in shape)
    ):
        raise _malformed(f"input {shown!r} has shape {str(shape)[:64]}, expected sizes, [n] say")
    if not isinstance(kind, str) or (kind != "BYTES" and kind not in _NUMBERS):
        raise _malformed(
            f"input {shown!r} is of datatype {str(kind)[:16]}, expected BYTES, "
            f"{', '.join(_NUMBERS)}"
        )
    count = math.prod(shape)
    size = _parameters(entry).get("binary_data_size")
    values: NDArray[Any] | list[str]
    if size is None:
        values = _from_json(shown, kind, count, entry.get("data"))
    else:
        if type(size) is not int or not 0 <= size <= len(rest):
            raise _malformed(
                f"input {shown!r} has binary_data_size {str(size)[:20]}, "
                f"and {len(rest)} bytes follow"
            )
        values = _from_bytes(shown, kind, count, rest[:size])
        rest = rest[size:]
    if isinstance(values, np.ndarray):
        values = values.reshape(shape)
    return Tensor(name, tuple(shape), values), rest


def _from_json(name: str, kind: str, count: int, data: object) -> NDArray[Any] | list[str]:
    flat = _flat(data) if isinstance(data, list) else None
    if flat is None or len(flat) != count:
        given = "no array" if flat is None else f"{len(flat)} elements"
        raise _malformed(f"input {name!r} has {given} as data, expected {count} elements")
    if kind == "BYTES":
        if not all(isinstance(value, str) for value in flat):
            raise _malformed(f"input {name!r} is of datatype BYTES, expected texts as data")
        return flat
    if not all(type(value) in (int, float) or value is None for value in flat):
        raise _malformed(f"input {name!r} is of datatype {kind}, expected numbers as data")
    return np.array(flat, dtype=np.float64)  # None becomes NaN: it is missing


def _flat(data: list[Any]) -> list[Any]:
    """The elements of arrays in arrays, which the protocol allows."""
    for _ in range(_MOST_DIMENSIONS):
        if not any(isinstance(value, list) for value in data):
            break
        data = [
            inner for value in data for inner in (value if isinstance(value, list) else [value])
        ]
    return data


def _from_bytes(name: str, kind: str, count: int, data: memoryview) -> NDArray[Any] | list[str]:
    if kind != "BYTES":
        numbers = np.dtype(_NUMBERS[kind])
        if len(data) != count * numbers.itemsize:
            raise _malformed(
                f"input {name!r} has {len(data)} bytes, expected {count} of {kind}: "
                f"{count * numbers.itemsize}"
            )
        return np.frombuffer(data, dtype=numbers).astype(np.float64)
    texts: list[str] = []
    at = 0
    content = bytes(data)
    while at < len(content) and len(texts) <= count:
        start = at + _SIZE.size
        end = start + _SIZE.unpack_from(content, at)[0] if start <= len(content) else start
        if end > len(content):
            raise _malformed(f"input {name!r}: element {len(texts)} ends beyond the data")
        try:
            texts.append(content[start:end].decode())
        except UnicodeDecodeError as error:
            raise _malformed(f"input {name!r}: element {len(texts)} is not UTF-8") from error
        at = end
    if len(texts) != count:
        raise _malformed(f"input {name!r} does not hold the {count} elements of its shape")
    return texts


def _packed(texts: Sequence[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(part for text in encoded for part in (_SIZE.pack(len(text)), text))


def _wanted(outputs: object, parameters: Mapping[str, Any]) -> tuple[Wanted, ...] | None:
    if outputs is None or outputs == []:
        return None
    if not isinstance(outputs, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in outputs
    ):
        raise _malformed('expected "outputs" to be an array of objects, each with a name')
    standard = parameters.get("binary_data_output") is True
    return tuple(
        Wanted(one["name"], _parameters(one).get("binary_data", standard) is True)
        for one in outputs
    )


def _parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    given = entry.get("parameters")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise _malformed('expected "parameters" to be an object')
    return given


def _malformed(detail: str) -> ProblemError:
    return ProblemError(MALFORMED_INFERENCE, detail)
