"""Reads the tensors of a file of weights without torch, which takes seconds to load.

A file that `torch.save` wrote is a zip archive: `data.pkl` names tensors and their shapes, `data/0`
and so on hold the numbers. The pickle is read by an unpickler that builds descriptions of tensors
alone and refuses everything else, so nothing in it is executed.
"""

import importlib
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.files import only_files
from trainables.models.encoder_shapes import Shapes
from trainables.models.matching import (
    COUNTER,
    WeightsError,
    matched,
    note_of,
    positions_note,
    state_of,
)
from trainables.models.stored_tensors import (
    NotUnderstood,
    StoredTensor,
    is_safetensors,
    read_safetensors,
)
from trainables.networks.positions import Grids

_MOST_BYTES = 64 * 2**20  # of data.pkl, which holds names and shapes alone
# torch's name of a storage → its dtype in torch, and NumPy's of the same bytes
_STORAGES = {
    "FloatStorage": ("float32", "<f4"), "DoubleStorage": ("float64", "<f8"),
    "HalfStorage": ("float16", "<f2"), "BFloat16Storage": ("bfloat16", "<u2"),
    "LongStorage": ("int64", "<i8"), "IntStorage": ("int32", "<i4"),
    "ShortStorage": ("int16", "<i2"), "CharStorage": ("int8", "i1"),
    "ByteStorage": ("uint8", "u1"), "BoolStorage": ("bool", "?"),
}  # fmt: skip
_FULL_CHECK = "trainables.models.weights"  # loads torch
_INFINITE = 0x7F80  # exponent of bfloat16 that no finite number has


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Return the state dict of a file. Raises NotUnderstood; WeightsError where it holds none."""
    try:
        if is_safetensors(path):
            return state_of(read_safetensors(path), path, StoredTensor)
        with open(path, "rb", opener=only_files) as file, zipfile.ZipFile(file) as archive:
            root = _root(archive)
            content = _Unpickler(archive.open(f"{root}/data.pkl"), path, root).load()
    except WeightsError:
        raise
    except Exception as error:  # unpickling raises nearly everything on damaged input
        raise NotUnderstood(f"{path}: {error}") from error
    return state_of(content, path, StoredTensor)


def _root(archive: zipfile.ZipFile) -> str:
    """Return the folder of an archive that holds data.pkl. Raises NotUnderstood."""
    names = archive.namelist()
    (pickled,) = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    root = pickled.removesuffix("/data.pkl")
    order = f"{root}/byteorder"
    if archive.getinfo(pickled).file_size > _MOST_BYTES or f"{root}/constants.pkl" in names:
        raise NotUnderstood("too large, or a program of TorchScript")
    if order in names and archive.read(order) != b"little":
        raise NotUnderstood("written on a machine with another order of bytes")
    return root


class _Unpickler(pickle.Unpickler):
    """Builds dictionaries, lists, numbers, texts, and StoredTensors."""

    def __init__(self, pickled: Any, path: Path, root: str) -> None:
        super().__init__(pickled)
        self._path, self._root = path, root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _Storage(name)
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _Tensor() if name == "_rebuild_tensor_v2" else _Parameter()
        raise NotUnderstood(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, Callable[[], npt.NDArray[Any]]]:
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _Storage):
            raise NotUnderstood(f"it refers to {kind}")
        dtype, form = _STORAGES[storage.name]
        return dtype, partial(_numbers, self._path, f"{self._root}/data/{key}", form, int(count))


# Objects without attributes in place of functions: a pickle can call them, and change nothing.
@dataclass(frozen=True, slots=True)
class _Storage:
    name: str


class _Tensor:
    __slots__ = ()

    def __call__(
        self, storage: tuple[str, Any], offset: int, shape: Any, stride: Any, *rest: Any
    ) -> StoredTensor:
        dtype, read = storage
        shape, stride = tuple(map(int, shape)), tuple(map(int, stride))
        return StoredTensor(shape, dtype, partial(_part, read, int(offset), shape, stride))


class _Parameter:
    __slots__ = ()

    def __call__(self, tensor: StoredTensor, *rest: Any) -> StoredTensor:
        return tensor


def _numbers(path: Path, entry: str, form: str, count: int) -> npt.NDArray[Any]:
    with open(path, "rb", opener=only_files) as file, zipfile.ZipFile(file) as archive:
        return np.frombuffer(archive.read(entry), dtype=form, count=count)


def _part(
    read: Callable[[], npt.NDArray[Any]],
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
) -> npt.NDArray[Any]:
    """Return the numbers of a tensor, a part of its storage."""
    storage = read()
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if 0 in shape:
        return storage[:0]
    if min((offset, *shape, *stride)) < 0 or last >= len(storage):
        raise NotUnderstood("a tensor is larger than its storage")
    steps = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def check_file(path: Path, shapes: Shapes) -> str:
    """Check that the tensors of a file fit an encoder. Returns what a reader should know of it, see
    `note_of`. Raises WeightsError.

    shapes: of the encoder's tensors. What cannot be read here (files of older versions of torch,
    sparse tensors, anything damaged) is read and refused by torch.
    """
    expected = {name: StoredTensor(shape, _dtype(name), _nothing) for name, shape in shapes.items()}
    try:
        state = read_tensors(path)
        given, prefix = matched(expected, state, str(path), _misfit, lambda like: like, _resized)
        notes = note_of(given, expected, prefix), positions_note(expected, state, prefix)
        return "; ".join(note for note in notes if note)
    except NotUnderstood:
        return str(importlib.import_module(_FULL_CHECK).check_file(path, shapes))


def _dtype(name: str) -> str:
    """Return the dtype of a tensor of an encoder: of a counter of batches int64."""
    return "int64" if name.endswith(COUNTER) else "float32"


def _nothing() -> npt.NDArray[Any]:
    return np.zeros(0)


def _resized(given: StoredTensor, grids: Grids) -> StoredTensor:
    """Return positions with the shape that they will have; their numbers are those of the file."""
    if "float" not in given.dtype:
        return given
    return given.view((given.shape[0], grids.others + grids.wanted**2, given.shape[2]))


def _misfit(given: StoredTensor, expected: StoredTensor) -> str:
    """Return why a tensor cannot take the place of another; empty where it can.

    Raises NotUnderstood where its numbers cannot be read.
    """
    if given.shape != expected.shape:
        return f"is {given.shape}, must be {expected.shape}"
    if "float" not in expected.dtype:
        return ""
    if "float" not in given.dtype:
        return f"is torch.{given.dtype}, must be floating-point"
    try:
        numbers = given.read()
    except Exception as error:  # of a damaged archive nearly everything
        raise NotUnderstood(str(error)) from error
    if given.dtype == "bfloat16":
        wrong = int(((numbers & _INFINITE) == _INFINITE).sum())
    else:
        with np.errstate(over="ignore"):  # larger than float32 holds: not finite there
            wrong = numbers.size - int(np.isfinite(numbers.astype(np.float32, copy=False)).sum())
    return f"has {wrong} values that are not finite" if wrong else ""
