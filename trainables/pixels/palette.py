"""Says which class a pixel of a mask has, by its number or its color."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trainables.dataset import IGNORED

Ids = npt.NDArray[np.uint8]  # (H, W) class ids, 255 where a pixel does not count
Color = tuple[int, int, int]  # RGB in [0, 255]
UNKNOWN = 254  # among class ids: the table lacks this value
MOST_CLASSES = UNKNOWN


@dataclass(frozen=True)
class Palette:
    """Says what the pixels of a mask mean.

    names: of the classes that count, by id. colours: id → RGB in [0, 255]. ignored: colors of
    pixels that do not count. rounded: channels below 128 mean 0, others 255.

    Without colors, masks hold numbers: `numbers` of the classes, and `ignored_numbers` of pixels
    that do not count. 255 does not count unless a class has it. more_numbers: (number, class id)
    of classes that have several.
    """

    names: tuple[str, ...]
    colours: tuple[Color, ...] = ()
    ignored: tuple[Color, ...] = ()
    rounded: bool = False
    numbers: tuple[int, ...] = ()
    ignored_numbers: tuple[int, ...] = ()
    more_numbers: tuple[tuple[int, int], ...] = field(default=(), repr=False)

    @property
    def meaning(self) -> str:
        """Return the palette as text, for a hash: the same text as long as nothing is added."""
        return f"{self!r} {self.more_numbers}" if self.more_numbers else repr(self)

    @property
    def named_numbers(self) -> dict[int, int]:
        """Return number in a mask → class id, IGNORED for those that do not count."""
        named = dict.fromkeys(self.ignored_numbers, IGNORED)
        named |= {number: index for index, number in enumerate(self.numbers)}
        return named | dict(self.more_numbers)

    def values_of(self, index: int) -> str:
        """Return what a class is in a mask, for people: its numbers or its color."""
        if self.colours:
            return str(self.colours[index])
        numbers = [self.numbers[index], *(n for n, other in self.more_numbers if other == index)]
        return " ".join(map(str, numbers))


def ids_of_numbers(numbers: npt.NDArray[np.integer], palette: Palette) -> Ids:
    """Return class ids of the numbers in a mask: IGNORED where they do not count, else UNKNOWN."""
    named = {IGNORED: IGNORED} | palette.named_numbers
    if numbers.dtype == np.uint8:
        return np.asarray(_table_of_bytes(tuple(named.items()))[numbers])
    known, places = np.unique(numbers, return_inverse=True)
    ids = np.array([named.get(int(number), UNKNOWN) for number in known], dtype=np.uint8)
    return ids[places].reshape(numbers.shape)


def ids_of_colours(pixels: Ids, palette: Palette) -> Ids:
    """Return class ids of the colors in a mask: IGNORED where they do not count, else UNKNOWN."""
    return np.asarray(_table_of_colours(palette.colours, palette.ignored)[codes(pixels)])


def rounded(pixels: Ids) -> Ids:
    """Map channels below 128 to 0 and others to 255."""
    return np.where(pixels >= 128, 255, 0).astype(np.uint8)


def codes(colours: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return one number per color: (..., 3) → (...)."""
    wide = colours.astype(np.int64)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


def count_values(values: npt.NDArray[np.integer]) -> Mapping[str, int]:
    """Count each value of pixels, numbers (N,) or colors (N, 3): its text → pixels, most first."""
    coloured = values.ndim == 2
    known, counts = np.unique(codes(values) if coloured else values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    texts = (_colour_text(int(known[k])) if coloured else str(int(known[k])) for k in order)
    return dict(zip(texts, counts[order].tolist(), strict=True))


def _colour_text(code: int) -> str:
    return str((code >> 16, code >> 8 & 255, code & 255))


@functools.lru_cache(maxsize=8)
def _table_of_bytes(named: tuple[tuple[int, int], ...]) -> Ids:
    table = np.full(256, UNKNOWN, dtype=np.uint8)
    for number, index in named:
        if 0 <= number <= 255:
            table[number] = index
    return table


@functools.lru_cache(maxsize=2)  # 16 MB each
def _table_of_colours(colours: tuple[Color, ...], ignored: tuple[Color, ...]) -> Ids:
    table = np.full(1 << 24, UNKNOWN, dtype=np.uint8)
    for index, colour in enumerate(colours):
        table[codes(np.array(colour))] = index
    for colour in ignored:
        table[codes(np.array(colour))] = IGNORED
    return table
