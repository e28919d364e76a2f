"""Describes tensors that lie in files, and reads those of a safetensors file, without torch.

Such a file is the length of its header in 8 bytes, the header as JSON (name → dtype, shape, first
and last byte), and the numbers. Nothing in it can be executed.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.files import only_files

_MOST_BYTES = 100_000_000  # of a header
_LENGTH = 8  # bytes that say how long the header is
# a dtype's name in the file → in torch, and NumPy's of the same bytes
_DTYPES = {
    "F64": ("float64", "<f8"), "F32": ("float32", "<f4"), "F16": ("float16", "<f2"),
    "BF16": ("bfloat16", "<u2"), "I64": ("int64", "<i8"), "I32": ("int32", "<i4"),
    "I16": ("int16", "<i2"), "I8": ("int8", "i1"), "U8": ("uint8", "u1"), "BOOL": ("bool", "?"),
}  # fmt: skip


class NotUnderstood(Exception):
    """Says that a file has another form, is damaged, or holds what only torch can read."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Describes a tensor in a file.

    dtype: torch's name, such as `float32`; read: its numbers, any shape; bfloat16 as uint16.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], npt.NDArray[Any]]

    def view(self, shape: tuple[int, ...], /) -> "StoredTensor":
        """Return the same numbers in another shape."""
        return replace(self, shape=tuple(shape))


def is_safetensors(path: Path) -> bool:
    """Return whether a file begins as a safetensors file does. Raises OSError."""
    with open(path, "rb", opener=only_files) as file:
        first = file.read(_LENGTH + 1)
    return first[_LENGTH:] == b"{" and int.from_bytes(first[:_LENGTH], "little") < _MOST_BYTES


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Return name → tensor of a safetensors file. Raises OSError, and NotUnderstood where it is
    damaged."""
    with open(path, "rb", opener=only_files) as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        text = file.read(length)
        begin, end = _LENGTH + length, file.seek(0, 2)
    try:
        header = json.loads(text)
        entries = {name: value for name, value in header.items() if name != "__metadata__"}
        return {name: _tensor(path, begin, end, entry) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotUnderstood(f"{path} is a damaged safetensors file ({error})") from error


def _tensor(path: Path, begin: int, end: int, entry: Any) -> StoredTensor:
    """Describe a tensor by its entry in the header. begin, end: of all numbers. Raises ValueError,
    TypeError, KeyError where the entry is wrong."""
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"it holds numbers of type {entry['dtype']}")
    dtype, form = _DTYPES[entry["dtype"]]
    shape = tuple(int(length) for length in entry["shape"])
    first, last = (begin + int(place) for place in entry["data_offsets"])
    size = math.prod(shape) * np.dtype(form).itemsize
    if min((0, *shape)) < 0 or not begin <= first <= last <= end or last - first != size:
        raise ValueError("a tensor does not lie where its header says")
    return StoredTensor(shape, dtype, partial(_numbers, path, first, size, form))


def _numbers(path: Path, first: int, size: int, form: str) -> npt.NDArray[Any]:
    with open(path, "rb", opener=only_files) as file:
        file.seek(first)
        return np.frombuffer(file.read(size), dtype=form)
