"""Decodes images in threads and writes them in their order, as a stream of memory-mapped rows."""

import contextlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from trainables.data.contract import Source
from trainables.dataset import IGNORED
from trainables.loading.mask_counts import Layout
from trainables.pixels.bands import Bands, square_bands
from trainables.pixels.images import UnreadableImage, square
from trainables.pixels.windows import cut_pair

_CHUNK_BYTES = 4 << 20
_AHEAD = 16  # chunks decoded before they are written, at most

Progress = Callable[[int, int], None]  # images done, images in all
Numbers = npt.NDArray[Any]
Decoded = tuple[list[Numbers], dict[int, str]]


def write_images(
    source: Source, size: int, into: tuple[Path, Layout], progress: Progress | None
) -> dict[int, str]:
    """Decode in threads, write images and masks in order. Returns index → reason of those that
    cannot be read.

    Written as a stream: on a memory map a full disk is a signal that kills the process.
    """
    (folder, layout), channels = into, source.reading.channels
    rows, count = sum(map(len, layout)), len(source.names)
    step = max(1, min(256, _CHUNK_BYTES // (channels * size**2)) * count // rows)
    chunks = [range(i, min(i + step, count)) for i in range(0, count, step)]
    shapes: dict[str, tuple[int, ...]] = {"images": (rows, channels, size, size)}
    if source.masks is not None:
        shapes["masks"] = (rows, size, size)
    types = {"images": "|u1" if source.bands is None else "<f4", "masks": "|u1"}
    errors: dict[int, str] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_strict_pillow())
        pool = stack.enter_context(ThreadPoolExecutor(_threads(source)))
        streams = [
            stack.enter_context(_array(folder / f"{name}.npy", shape, types[name]))
            for name, shape in shapes.items()
        ]
        decoded = _in_order(pool, lambda chunk: _decode(source, size, chunk, layout), chunks)
        for chunk, (arrays, unreadable) in zip(chunks, decoded, strict=True):
            for stream, array in zip(streams, arrays, strict=True):
                stream.write(array.tobytes())
            errors |= unreadable
            if progress is not None:
                progress(chunk.stop, count)
    return errors


def _threads(source: Source) -> int:
    """Return the number of threads: one for tiny images, whose decoding is mostly Python code
    (CIFAR-10 takes 1.6 times as long with two)."""
    sample = source.files[:: max(1, len(source.files) // 100)]
    size = sum(file.stat().st_size for file in sample) / max(1, len(sample))
    return min(8, os.cpu_count() or 1) if size > 4096 else 1


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[range], Decoded],
    chunks: list[range],
) -> Iterator[Decoded]:
    """Work like pool.map, but only a few chunks ahead, so that memory stays bounded."""
    waiting: deque[Future[Decoded]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(work, chunk))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _decode(source: Source, size: int, chunk: Sequence[int], places: Layout) -> Decoded:
    """Decode the images of a chunk. places: of the windows of every image.

    Returns arrays and index → reason of unreadable images. The arrays are (rows, 3, size, size)
    uint8 pixels, black where unreadable, or float32 numbers of all channels, NaN where there is no
    image; and with masks (rows, size, size) class ids. An image has a row for each window.
    """
    rows = sum(len(places[index]) for index in chunk)
    shape, plain = (rows, source.reading.channels, size, size), source.bands is None
    pixels: Numbers = np.zeros(shape, np.uint8) if plain else np.full(shape, np.nan, np.float32)
    ids = np.full((rows, size, size), IGNORED, dtype=np.uint8)
    errors, row = {}, 0
    for index in chunk:
        here = slice(row, row + len(places[index]))
        row = here.stop
        try:
            image = source.decode(index) if source.bands is None else source.bands(index)
            if source.masks is None:
                pixels[here] = _square(image, size).transpose(2, 0, 1)  # HWC → CHW
            else:
                mask = source.masks.decode(index)
                cut_pair(image, mask, places[index], (pixels[here], ids[here]))
        except UnreadableImage as error:
            errors[index] = str(error)
    return ([pixels] if source.masks is None else [pixels, ids]), errors


def _square(image: Image.Image | Bands, size: int) -> Numbers:
    if isinstance(image, Image.Image):
        return np.asarray(square(image, size))
    return square_bands(image, size)


@contextlib.contextmanager
def _strict_pillow() -> Iterator[None]:
    """Make a truncated image an error, whatever the process has set, and silence warnings."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


@contextlib.contextmanager
def _array(path: Path, shape: tuple[int, ...], kind: str) -> Iterator[BinaryIO]:
    """Open a new .npy file with its header written. kind: NumPy's text for the type."""
    with synced(path) as stream:
        header = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        yield stream


@contextlib.contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that is on the disk when the block ends."""
    with open(path, "wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
