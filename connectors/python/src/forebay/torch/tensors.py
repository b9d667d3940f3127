"""From Arrow columns to tensors.

| Arrow | in a batch of n rows | copied |
|---|---|---|
| integers, uint8, floats | tensor [n] of that type | no |
| uint16, uint32, uint64 | tensor [n], int32, int64, int64 (PyTorch computes little with unsigned ones) | yes |
| bool | tensor [n] bool | yes, Arrow packs bits |
| date, time, timestamp, duration | tensor [n] of integers in the column's unit: days, seconds … nanoseconds | no |
| decimal | tensor [n] float64 | yes |
| fixed_size_list of numbers, also nested | tensor [n, k, …] | no |
| fixed_shape_tensor | tensor [n, *shape], as its permutation says | no |
| list of numbers | list of n tensors, each as long as its row | no |
| string, binary | list of n `str`, `bytes` | yes |
| dictionary | what its values become | yes |
| struct | dict of the same | as its fields |
| map, union, list of others | list of n Python objects | yes |

A row has element i of each: a tensor without dimension, a `str`, and so on. Null: NaN for floats, None in lists; a null in any other number
is refused with the column's name, since no tensor can hold it: fill it, or leave it out by a filter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import torch

from ..errors import InvalidArgument

_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}  # Arrow's names to PyTorch's
_WIDER = {pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.int64()}


def columns(batch: pa.RecordBatch) -> dict[str, Any]:
    """The columns of a batch by name, each a tensor, a list or a dict."""
    return {name: column(batch.column(k), name) for k, name in enumerate(batch.schema.names)}


def rows(columns: dict[str, Any], count: int, own: bool) -> Iterator[dict[str, Any]]:
    """Row after row; tensors of their own where they go to another process, which would get the whole batch with each."""
    for k in range(count):
        yield {name: _row(each, k, own) for name, each in columns.items()}


def owned(columns: dict[str, Any]) -> dict[str, Any]:
    """The same with tensors that share memory with nothing else."""
    return {name: _owned(each) for name, each in columns.items()}


def column(array: pa.Array, name: str) -> Any:
    """One column by the table above.

    Raises:
        InvalidArgument: a null that no tensor can hold, or a uint64 beyond int64.
    """
    kind = array.type
    if isinstance(kind, pa.FixedShapeTensorType):
        stored = column(array.storage, name).reshape(len(array), *kind.shape)
        return stored if kind.permutation is None else stored.permute(0, *(k + 1 for k in kind.permutation))
    if isinstance(kind, pa.BaseExtensionType):
        return column(array.storage, name)
    if pa.types.is_dictionary(kind):
        return column(array.dictionary_decode(), name)
    if pa.types.is_struct(kind):
        if array.null_count:
            raise _null(name)
        return {kind.field(k).name: column(part, f"{name}.{kind.field(k).name}") for k, part in enumerate(array.flatten())}
    if pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type):
        if array.null_count:
            raise _null(name)
        return _fixed(array, kind, name)
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_number(kind.value_type):
        return _ragged(array, name)
    return _numbers(array, name) if _is_number(kind) else array.to_pylist()


def _is_number(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(kind):
        return _is_number(kind.value_type)
    return bool(pa.types.is_primitive(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind))


def _fixed(array: pa.Array, kind: pa.DataType, name: str) -> Any:
    width = kind.list_size
    values = array.values.slice(array.offset * width, len(array) * width)
    inner = _fixed(values, kind.value_type, name) if pa.types.is_fixed_size_list(kind.value_type) else _numbers(values, name)
    return inner.reshape(len(array), width, *inner.shape[1:])


def _ragged(array: pa.Array, name: str) -> list[Any]:
    if not len(array):
        return []
    offsets = array.offsets.to_pylist()
    whole = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    values = _fixed(whole, array.type.value_type, name) if pa.types.is_fixed_size_list(array.type.value_type) else _numbers(whole, name)
    valid = array.is_valid().to_pylist() if array.null_count else None
    parts = [values[a - offsets[0] : b - offsets[0]] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    return parts if valid is None else [part if ok else None for part, ok in zip(parts, valid, strict=True)]


def _numbers(array: pa.Array, name: str) -> Any:
    kind = array.type
    if pa.types.is_temporal(kind):
        array = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    elif kind in _WIDER:
        try:
            array = array.cast(_WIDER[kind])
        except pa.ArrowInvalid:
            raise InvalidArgument(f"column {name!r} has a number beyond int64, which no tensor can hold; cast it before") from None
    if array.null_count:
        if not pa.types.is_floating(array.type):
            raise _null(name)
        array = array.fill_null(float("nan"))
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
        return _shared(array).to(torch.bool)
    return _shared(array)


def _shared(array: pa.Array) -> Any:
    """A tensor over the array's memory."""
    if not len(array):
        return torch.empty(0, dtype=getattr(torch, _FLOATS.get(str(array.type), str(array.type))))
    return torch.from_dlpack(array)


def _row(column: Any, k: int, own: bool) -> Any:
    if isinstance(column, dict):
        return {name: _row(each, k, own) for name, each in column.items()}
    value = column[k]
    return value.clone() if own and isinstance(value, torch.Tensor) else value


def _owned(column: Any) -> Any:
    if isinstance(column, dict):
        return {name: _owned(each) for name, each in column.items()}
    if isinstance(column, list):
        return [each.clone() if isinstance(each, torch.Tensor) else each for each in column]
    return column.clone()


def _null(name: str) -> InvalidArgument:
    text = f"column {name!r} has a null, which no tensor can hold; fill it before, or leave it out by a filter: {name} IS NOT NULL"
    return InvalidArgument(text)
