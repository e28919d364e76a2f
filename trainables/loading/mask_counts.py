"""Counts the pixels of each class in all masks of a data set, and checks what the masks hold.

Masks that did not change are not read again: what was found in a pair of files is remembered.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainables.contents.file_hashes import (
    Progress,
    cores,
    file_hashes,
    in_threads,
    masks_manifest,
    read_entries,
    unseen,
    write_entries,
)
from trainables.data.contract import Source
from trainables.data.masks import Held, numbers_or_reason
from trainables.data.masks import Look as LookAtNumbers
from trainables.dataset import IGNORED, few
from trainables.pixels.images import UnreadableImage, unreadable_images
from trainables.pixels.mask_values import MaskTally, tally_mask
from trainables.pixels.pairs import TURNED, pair_size
from trainables.pixels.palette import MOST_CLASSES, Color, Palette
from trainables.pixels.windows import Places, windows

_FORMAT = 1  # of what is remembered: raise it when a mask is counted in another way
_SHOWN = 8  # values in a message

Layout = list[Places]  # of each image, the windows in which it is kept
Look = MaskTally | str  # what a mask holds, or why it cannot be used


@dataclass(frozen=True)
class MaskCounts:
    """Counts the pixels of a data set with masks.

    names: of the images; files: of the masks, for messages; looks: what each mask holds; parts: as
    in the source; palette: None for masks in memory.
    """

    names: Sequence[str]
    files: Sequence[str]
    looks: Sequence[Look]
    parts: dict[str, list[int]]
    classes: tuple[str, ...]
    palette: Palette | None

    def pixels(self, part: str) -> list[int]:
        """Return the pixels of each class in a part."""
        rows = [tally.classes for tally in self._tallies(part)]
        return [sum(column) for column in zip(*rows, strict=True)] or [0] * len(self.classes)

    def uncounted(self, part: str) -> dict[str, int]:
        """Return value → pixels of a part that do not count."""
        total: Counter[str] = Counter()
        for tally in self._tallies(part):
            total.update(tally.uncounted)
        return dict(total)

    def _tallies(self, part: str) -> list[MaskTally]:
        looks = [self.looks[row] for row in self.parts[part]]
        return [look for look in looks if isinstance(look, MaskTally)]


def count_masks(source: Source, manifest: Path, progress: Progress = unseen) -> MaskCounts:
    """Look at all masks of a data set. manifest: as of `fingerprint`, whose hashes are used.

    progress: is called after each mask that is not remembered.

    Raises DataError for a file that cannot be read at all.
    """
    masks = source.masks
    if masks is None:
        raise ValueError("the data set has no masks")
    rows = range(len(source.names))
    palette = masks.palette
    if palette is None:
        looks: list[Look] = [_of_ids(masks.decode(row), len(source.classes)) for row in rows]
    else:
        looks = _looks(
            (source.files, masks.files), palette, source.reading.page, manifest, progress
        )
    parts = {part: indices.tolist() for part, indices in source.parts.items()}
    files = [f"{file.parent.name}/{file.name}" for file in masks.files] or source.names
    return MaskCounts(source.names, files, looks, parts, source.classes, palette)


def remembered_numbers(manifest: Path, progress: Progress = unseen) -> LookAtNumbers:
    """Return what reads the numbers in masks, but not of files whose content it has seen before.

    manifest, progress: as of `count_masks`. What it returns raises DataError for a file that cannot
    be read at all.
    """

    def look(masks: Sequence[Path]) -> list[Held]:
        keys = file_hashes(masks, masks_manifest(manifest), progress)
        memory = manifest.with_name(f"{manifest.stem}-numbers{manifest.suffix}")
        found: dict[str, Held] = {
            key: held if isinstance(held, str) else frozenset(held)
            for key, (written, held) in read_entries(memory).items()
            if written == _FORMAT
        }
        new = {key: mask for key, mask in zip(keys, masks, strict=True) if key not in found}
        read = in_threads(numbers_or_reason, list(new.values()), cores())
        for count, (key, held) in enumerate(zip(new, read, strict=True), start=1):
            found[key] = held
            progress(count, len(new))
        few_numbers = {  # a mask of more is refused, and may have millions
            key: held if isinstance(held, str) else sorted(held)
            for key, held in found.items()
            if isinstance(held, str) or len(held) <= MOST_CLASSES + 1
        }
        if new:
            write_entries(memory, {key: [_FORMAT, held] for key, held in few_numbers.items()})
        return [found[key] for key in keys]

    return look


def _of_ids(ids: np.ndarray[Any, Any], classes: int) -> MaskTally:
    counts = np.bincount(ids.ravel(), minlength=IGNORED + 1)
    ignored = int(counts[IGNORED])
    return MaskTally(counts[:classes].tolist(), {str(IGNORED): ignored} if ignored else {}, {}, {})


def _looks(
    files: tuple[Sequence[Path], Sequence[Path]],
    palette: Palette,
    page: int | None,
    manifest: Path,
    progress: Progress,
) -> list[Look]:
    """Return what each pair holds, of those that are not remembered by looking. files: images and
    masks; page: of the images."""
    images, masks = files
    hashes = zip(
        file_hashes(images, manifest), file_hashes(masks, masks_manifest(manifest)), strict=True
    )
    keys = [f"{image[:20]} {mask[:20]}" for image, mask in hashes]
    memory = manifest.with_name(f"{manifest.stem}-counts{manifest.suffix}")
    header = json.dumps([_FORMAT, palette.meaning, *([page] if page else [])])
    known = {
        key: look for key, (written, look) in read_entries(memory).items() if written == header
    }
    pairs = dict(zip(keys, zip(images, masks, strict=True), strict=True))
    new = {key: pair for key, pair in pairs.items() if key not in known}
    fresh: list[Look] = []
    pairs_left = list(new.values())
    looked = in_threads(lambda pair: _look(*pair, palette, page), pairs_left, cores())
    for look in looked:
        fresh.append(look)
        progress(len(fresh), len(pairs_left))
    known |= {
        key: look if isinstance(look, str) else asdict(look)
        for key, look in zip(new, fresh, strict=True)
    }
    if new:
        write_entries(memory, {key: [header, look] for key, look in known.items()})
    return [_from_plain(known[key]) for key in keys]


def _look(image: Path, mask: Path, palette: Palette, page: int | None) -> Look:
    try:
        size = pair_size(image, mask, page)
        return replace(tally_mask(mask, palette), size=size)
    except UnreadableImage as error:
        return str(error)


def _from_plain(look: Any) -> Look:
    if isinstance(look, str):
        return look
    palette = {int(index): (r, g, b) for index, (r, g, b) in look["palette"].items()}
    width, height = look["size"]
    return MaskTally(**look | {"palette": palette, "size": (width, height)})


def window_layout(source: Source, size: int) -> Layout:
    """Return the places of the windows of each image: one, except of pairs larger than `size`."""
    masks = source.masks
    if masks is None:
        return [[(0, 0)]] * len(source.names)

    def of_pair(index: int) -> Places:
        try:
            if not masks.files:
                return windows(masks.decode(index).shape[::-1], size)
            return windows(pair_size(source.files[index], masks.files[index]), size)
        except UnreadableImage:  # decoding says why
            return [(0, 0)]

    return list(in_threads(of_pair, range(len(source.names)), cores()))


def check_masks(
    counts: MaskCounts, on_corrupt: Literal["fail", "skip"], side: int | None
) -> list[str]:
    """Return what is wrong with the masks of a data set: a line each, empty if nothing is.

    side: of the squares in px where the set is trained on. Wrong are masks that cannot be used,
    unless they are skipped; values that the table lacks; and, where the set is trained on, classes
    without a pixel in training.
    """
    lines = []
    looks = {name: _fault(look) for name, look in zip(counts.names, counts.looks, strict=True)}
    refused = {name: reason for name, reason in looks.items() if reason}
    if refused and on_corrupt == "fail":
        lines.append(str(unreadable_images(refused)))
    lines += _turned_alone(counts)
    lines += _palettes_that_differ(counts) or _unknown_values(counts)
    if side is not None and not lines:
        lines += _classes_without_pixels(counts)
    return lines


def _unknown_values(counts: MaskCounts) -> list[str]:
    rows: dict[str, list[tuple[int, str]]] = {}
    for name, look in zip(counts.files, counts.looks, strict=True):
        for value, pixels in look.unknown.items() if isinstance(look, MaskTally) else ():
            rows.setdefault(value, []).append((pixels, name))
    if not rows:
        return []
    coloured = counts.palette is not None and counts.palette.colours
    what = "colours" if coloured else "values"
    most = sorted(rows, key=lambda value: -sum(pixels for pixels, _ in rows[value]))
    shown = few([_in_masks(value, rows[value]) for value in most], most=_SHOWN)
    cure = "add them to classes.csv, with `ignored` 1 where they do not count"
    if any(
        name.lower().endswith((".jpg", ".jpeg")) for found in rows.values() for _, name in found
    ):
        cure = "JPEG changes them when it saves a mask: save masks as PNG, from the originals"
    return [f"masks hold {what} that the class table lacks: {shown}: {cure}"]


def _fault(look: Look) -> str:
    """Return why a pair cannot be used, empty if it can."""
    return look if isinstance(look, str) and look != TURNED else ""


def _turned_alone(counts: MaskCounts) -> list[str]:
    pairs = [
        f"{name} with {file}"
        for name, file, look in zip(counts.names, counts.files, counts.looks, strict=True)
        if look == TURNED
    ]
    if not pairs:
        return []
    return [
        f"{TURNED}, and their sizes do not tell which is right ({len(pairs)}: {few(pairs)}): store "
        "the images turned, or remove their EXIF orientation, whichever fits the masks"
    ]


def _palettes_that_differ(counts: MaskCounts) -> list[str]:
    """Compare the palettes of masks by the indices that are used: each must show one color, and a
    color must have one index, unless a mask uses several for it."""
    colours: dict[int, dict[Color, str]] = {}  # index → color → a file
    indices: dict[Color, dict[frozenset[int], str]] = {}  # color → its indices in a mask → a file
    for name, look in zip(counts.files, counts.looks, strict=True):
        used = look.palette if isinstance(look, MaskTally) else {}
        for index, colour in used.items():
            colours.setdefault(index, {}).setdefault(colour, name)
        for colour in set(used.values()):
            alike = frozenset(index for index, other in used.items() if other == colour)
            indices.setdefault(colour, {}).setdefault(alike, name)
    lines = [
        f"index {index} is " + " and ".join(f"{c} in {name}" for c, name in list(shown.items())[:2])
        for index, shown in sorted(colours.items())
        if len(shown) > 1
    ]
    for colour, sets in indices.items():
        first, *others = sets
        apart = [other for other in others if not first & other]
        if apart and not any(first <= s and apart[0] <= s for s in sets):
            ways = [f"{min(some)} in {sets[some]}" for some in (first, apart[0])]
            lines.append(f"colour {colour} is index " + " and ".join(ways))
    if not lines:
        return []
    return [
        f"palettes of masks differ ({few(lines, most=3)}): give classes.csv the columns r, g, b, "
        "so that the colour shown decides, or save all masks with one palette"
    ]


def _classes_without_pixels(counts: MaskCounts) -> list[str]:
    pixels = counts.pixels("train")
    absent = [index for index, count in enumerate(pixels) if not count]
    if not absent:
        return []
    palette, classes = counts.palette, counts.classes
    names = few([f"{classes[k]!r}{_value_note(palette, k)}" for k in absent], most=_SHOWN)
    held: dict[str, list[tuple[int, str]]] = {}
    for row in counts.parts["train"]:
        look = counts.looks[row]
        if isinstance(look, MaskTally):
            for value, count in _held(look, classes, palette).items():
                held.setdefault(value, []).append((count, counts.files[row]))
    shown = few([_in_masks(value, rows) for value, rows in held.items()], most=_SHOWN)
    several = len(absent) > 1
    if any(isinstance(look, MaskTally) and look.grey_palette for look in counts.looks):
        shown += " (of grey palettes what they show, not the index)"
    cure = (
        "remove them from training" if palette is None
        else "correct classes.csv (`values` names the values of a class, `ignored` 1 takes one "
        "out), or add training images that show " + ("them" if several else "it")
    )  # fmt: skip
    return [
        f"class{'es' if several else ''} {names} {'have' if several else 'has'} no pixel in the "
        f"{len(counts.parts['train'])} training masks, which hold {shown}: {cure}"
    ]


def _held(look: MaskTally, classes: Sequence[str], palette: Palette | None) -> dict[str, int]:
    """Return what a mask shows, for a message → pixels."""
    counted = {
        f"{name!r}{_value_note(palette, index)}": look.classes[index]
        for index, name in enumerate(classes)
        if look.classes[index]
    }
    return counted | {f"{value} (not counted)": n for value, n in look.uncounted.items()}


def _value_note(palette: Palette | None, index: int) -> str:
    return "" if palette is None else f" ({palette.values_of(index).strip('()')})"


def _in_masks(value: str, rows: Sequence[tuple[int, str]]) -> str:
    """Return `7: 1,234 pixels in 3 masks (a.png, b.png and 1 more)`."""
    total, names = sum(pixels for pixels, _ in rows), [name for _, name in rows]
    masks = f"{len(rows)} mask{'s' if len(rows) > 1 else ''}"
    return f"{value}: {total:,} pixel{'s' if total > 1 else ''} in {masks} ({few(names, most=3)})"
