"""Derives seeds, and draws the permutations by which data sets are cut, without loading torch."""

import hashlib

import numpy as np
import numpy.typing as npt

_WORDS = 2**32  # different numbers that the generator draws


def derived_seed(*parts: object) -> int:
    """Return a 62-bit seed that depends on every part, for `torch.manual_seed` and generators."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def permutation(count: int, *parts: object) -> npt.NDArray[np.int64]:
    """Return a permutation of range(count), (count,) int64, decided by `parts` alone.

    It is that of `randomness.permutation`: torch's `randperm` on the CPU shuffles with the
    generator MT19937, which NumPy has too.
    """
    order = list(range(count))
    words = np.random.RandomState(derived_seed("permutation", *parts) % _WORDS)
    left = np.arange(count, 1, -1, dtype=np.uint32)  # places that are left at each step
    jumps = (words.randint(0, _WORDS, len(left), dtype=np.uint32) % left).tolist()
    for place, jump in enumerate(jumps):
        other = place + jump
        order[place], order[other] = order[other], order[place]
    return np.array(order, dtype=np.int64)
