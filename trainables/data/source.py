"""The images of a data set, not decoded yet, and their masks where they have any."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.data.class_table import Colour, Ids, Palette, read_mask
from trainables.data.images import open_image
from trainables.data.mask_pairs import list_pairs
from trainables.dataset import Indices


@dataclass(frozen=True)
class Masks:
    """A class for every pixel.

    files: one an image, or none where they are held in memory; decode: index → (H, W) uint8 ids of
    the classes, 255 where a pixel does not count; palette: what decides, beside the files, which
    pixel has which class.
    """

    files: list[Path]
    decode: Callable[[int], Ids]
    palette: Palette | None = None

    @property
    def meaning(self) -> str:
        return repr(self.palette) if self.palette else ""

    @property
    def colours(self) -> tuple[Colour, ...]:
        """Of the classes, if they have any."""
        return self.palette.colours if self.palette else ()


@dataclass(frozen=True)
class Source:
    """The images of a data set, not decoded yet.

    names, labels (N,) int64 and `files` share one order; names are unique, relative and sorted
    within a class. Without labels there are no classes and every label is -1; with masks the
    classes are those of the pixels, and every label is -1 too. parts: disjoint
    sorted indices by split. files: one an image, or none where the images are held in memory.
    decode: index → RGB of any size, raises UnreadableImage.
    """

    classes: tuple[str, ...]
    names: list[str]
    labels: Indices
    parts: dict[str, Indices]
    files: list[Path]
    decode: Callable[[int], Image.Image]
    masks: Masks | None = None

    @property
    def labelled(self) -> bool:
        """Whether an image has a class."""
        return bool(self.classes) and self.masks is None


def only_used(source: Source) -> Source:
    """Drop images left out by `limit`, so that nobody hashes or decodes them."""
    used = np.sort(np.concatenate(list(source.parts.values())))
    if len(used) == len(source.names):
        return source
    return Source(
        classes=source.classes,
        names=[source.names[i] for i in used],
        labels=source.labels[used],
        parts={part: np.searchsorted(used, indices) for part, indices in source.parts.items()},
        files=[source.files[i] for i in used] if source.files else [],
        decode=lambda index: source.decode(int(used[index])),
        masks=source.masks and _masks_of(source.masks, used),
    )


def _masks_of(masks: Masks, used: Indices) -> Masks:
    files = [masks.files[i] for i in used] if masks.files else []
    return Masks(files, lambda index: masks.decode(int(used[index])), masks.palette)


def from_pairs(folder: Path, palette: Palette) -> Source:
    """The images and masks of a folder; a `val` without a `test` is the test set. Raises
    DataError."""
    found = list_pairs(folder)
    if "test" not in found and "val" in found:
        found = {"test" if part == "val" else part: found[part] for part in found}
    pairs = [pair for part in found.values() for pair in part]
    ends = np.cumsum([len(part) for part in found.values()])
    parts = {
        part: np.arange(end - len(found[part]), end) for part, end in zip(found, ends, strict=True)
    }
    images, masks = ([folder / pair[k] for pair in pairs] for k in (0, 1))
    return Source(
        classes=palette.names,
        names=[image for image, _ in pairs],
        labels=np.full(len(pairs), -1, dtype=np.int64),
        parts=parts,
        files=images,
        decode=lambda index: open_image(images[index]),
        masks=Masks(masks, lambda index: read_mask(masks[index], palette), palette),
    )


def from_memory(
    classes: tuple[str, ...], images: npt.NDArray[np.uint8], masks: Ids, kind: str
) -> Source:
    """images: (N, H, W, 3); masks: (N, H, W) class ids; kind: what their names begin with."""
    return Source(
        classes=classes,
        names=[f"{kind}/{i:03d}" for i in range(len(images))],
        labels=np.full(len(images), -1, dtype=np.int64),
        parts={"train": np.arange(len(images))},
        files=[],
        decode=lambda index: Image.fromarray(images[index]),
        masks=Masks([], lambda index: masks[index]),
    )
