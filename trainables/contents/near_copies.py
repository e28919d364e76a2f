"""Finds images that look nearly the same: saved anew, resized, or brightened.

Each image has a difference hash (Neal Krawetz, "Kind of Like That", 2013): 64 bits, each of which
says whether one of 8x9 grey cells is darker than the next one in its row. Images whose hashes
differ in few bits are compared once more, by their pixels.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.contents.file_hashes import cores
from trainables.dataset import Indices

FORMAT = 1  # of what decides which images are near: raise it when that changes
MOST_BITS = 4  # that differ between the hashes of two near images
LEAST_CORRELATION = 0.985  # of their grey values; another photograph of a thing has less
_CELLS = 16  # a side, of the second comparison
_FLAT = 2.0  # grey levels: an image with less contrast has no hash
_SIDE = 128  # px that are looked at in each direction, at most twice as many
_CHUNK = 512  # images
_AT_ONCE = 1 << 22  # pairs of hashes in memory
_BYTES = 1 << 26  # of images in memory

Images = npt.NDArray[Any]  # (N, C, S, S)
Hashes = npt.NDArray[np.uint64]
Cells = npt.NDArray[np.float32]


def difference_hashes(images: Images) -> Hashes:
    """Return the hash of each image (N, C, S, S), of any numbers: (N,); 0 for one without contrast.

    Works in threads, a chunk of images at a time.
    """

    def of_chunk(start: int) -> Hashes:
        cells = _cells(images[start : start + _CHUNK], 8, 9)
        bits = (cells[:, :, 1:] > cells[:, :, :-1]).reshape(len(cells), 64)
        hashes = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
        return np.where(cells.std((1, 2)) < _flat(images), np.uint64(0), hashes)

    with ThreadPoolExecutor(cores()) as pool:
        chunks = list(pool.map(of_chunk, range(0, len(images), _CHUNK)))
    return np.concatenate(chunks) if chunks else np.zeros(0, np.uint64)


def near_pairs(
    own: tuple[Images, Hashes, Indices], others: tuple[Images, Hashes, Indices]
) -> Indices:
    """Return pairs of rows (P, 2) that look nearly the same, one for each own row that has any.

    own, others: images, the hash of each, and the rows that are compared.
    """
    (images, hashes, rows), (their_images, their_hashes, their_rows) = own, others
    rows = rows[hashes[rows] != 0]
    distinct, first = np.unique(their_hashes[their_rows], return_index=True)
    their_rows = their_rows[first[distinct != 0]]  # of equal hashes one is enough
    found = _close(hashes[rows], their_hashes[their_rows])
    pairs: Indices = np.stack([rows[found[:, 0]], their_rows[found[:, 1]]], axis=1)
    if not len(pairs):
        return pairs
    at_once = max(1, _BYTES // max(images[0].nbytes, their_images[0].nbytes))
    alike = [
        _correlation(images[part[:, 0]], their_images[part[:, 1]])
        for part in np.array_split(pairs, len(pairs) // at_once + 1)
    ]
    correlation = np.concatenate(alike)
    is_near = correlation >= LEAST_CORRELATION
    pairs, correlation = pairs[is_near], correlation[is_near]
    order = np.lexsort((-correlation, pairs[:, 0]))  # the most alike of each own row first
    _, best = np.unique(pairs[order, 0], return_index=True)
    chosen = order[best]
    result: Indices = pairs[chosen[np.argsort(-correlation[chosen], kind="stable")]]
    return result


def _close(hashes: Hashes, others: Hashes) -> Indices:
    """Return the pairs of places (P, 2) whose hashes differ in MOST_BITS bits or fewer.

    Of MOST_BITS + 1 blocks of bits, two such hashes have one in common: only pairs with an equal
    block are looked at.
    """
    found = [np.zeros((0, 2), np.int64)]
    edges = np.linspace(0, 64, MOST_BITS + 2).astype(np.uint64)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        mask = np.uint64((1 << int(high - low)) - 1)
        blocks, their_blocks = (hashes >> low) & mask, (others >> low) & mask
        order = np.argsort(their_blocks, kind="stable")
        begin = np.searchsorted(their_blocks[order], blocks, "left")
        counts = np.searchsorted(their_blocks[order], blocks, "right") - begin
        ends = np.cumsum(counts)
        start = 0
        while start < len(hashes):
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _AT_ONCE, "right")))
            some = counts[start:stop]
            mine = np.repeat(np.arange(start, start + len(some)), some)
            shift = np.repeat(begin[start:stop] - (np.cumsum(some) - some), some)
            theirs = order[np.arange(len(mine)) + shift]
            close = np.bitwise_count(hashes[mine] ^ others[theirs]) <= MOST_BITS
            found.append(np.stack([mine[close], theirs[close]], axis=1))
            start = stop
    pairs: Indices = np.unique(np.concatenate(found), axis=0)
    return pairs


def _correlation(images: Images, others: Images) -> Cells:
    """Return the correlation of the grey values of pairs of images: two (N, C, S, S) → (N,)."""
    side = min(_CELLS, images.shape[-1], others.shape[-1])
    own, other = (_centered(_cells(group, side, side)) for group in (images, others))
    correlation: Cells = np.einsum("ni,ni->n", own, other)
    return correlation


def _centered(cells: Cells) -> Cells:
    """Return (N, cells) of mean 0 and length 1; 0 for an image without contrast."""
    flat = cells.reshape(len(cells), -1)
    flat = flat - flat.mean(1, keepdims=True)
    centered: Cells = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return centered


def _cells(images: Images, rows: int, columns: int) -> Cells:
    """Return the mean grey of equal cells: (N, C, S, S) → (N, rows, columns) float32."""
    step = max(1, images.shape[-1] // _SIDE)
    grey = images[:, :, ::step, ::step].mean(1, dtype=np.float32)
    cells: Cells = _means(rows, grey.shape[1]) @ grey @ _means(columns, grey.shape[2]).T
    return cells


def _means(count: int, side: int) -> Cells:
    """Return the matrix (count, side) that takes means over equal intervals of `side` pixels."""
    edges, places = np.linspace(0, side, count + 1), np.arange(side)
    low, high = edges[:-1, None], edges[1:, None]
    shares = np.clip(np.minimum(high, places + 1) - np.maximum(low, places), 0, None)
    weights: Cells = (shares * count / side).astype(np.float32)
    return weights


def _flat(images: Images) -> float:
    """Return the contrast below which an image has no hash, in the unit of its numbers."""
    return _FLAT if images.dtype == np.uint8 else _FLAT / 64  # numbers of deviation 1, not 64
