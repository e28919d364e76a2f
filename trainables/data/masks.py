"""Finds the files of data sets with masks: pairs of an image and a mask, and a table of classes.

How pairs lie is the matter of `layouts/mask_pairs.py` and `layouts/voc.py`, what a mask holds that
of `pixels/class_table.py`.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables.data.contract import (
    Masks,
    Settings,
    Source,
    find_place,
    without_validation,
)
from trainables.dataset import IGNORED, DataError, few
from trainables.layouts.class_names import safe_names
from trainables.layouts.folders import Scan
from trainables.layouts.mask_pairs import Pairs, list_pairs, list_pairs_by_patterns
from trainables.layouts.voc import find_voc, list_voc
from trainables.pixels.class_table import (
    DEEPGLOBE,
    TABLE,
    VOC,
    is_pure,
    named_by_lines,
    read_palette,
)
from trainables.pixels.images import UnreadableImage
from trainables.pixels.mask_values import mask_numbers
from trainables.pixels.pairs import open_pair_image, read_pair_mask
from trainables.pixels.palette import MOST_CLASSES, Palette

AUTO = "auto"  # value of `classes`
Held = frozenset[int] | str  # numbers in a mask, or why it cannot be read
Look = Callable[[Sequence[Path]], Sequence[Held]]


def read_deepglobe(settings: Settings, root: Path | None) -> Source:
    """Read NNNN_sat.jpg beside NNNN_mask.png, in the colors of classes.csv, else of DeepGlobe."""
    scan = _scan(find_place(settings, root), settings)
    listed = list_pairs(scan)
    palette = _palette(scan, settings.classes) or DEEPGLOBE
    return _from_pairs(scan, listed, replace(palette, rounded=is_pure(palette)), settings.page)


def read_mask_folders(settings: Settings, root: Path | None) -> Source:
    """Read folders of images and of masks, and a table of classes that says what a mask holds."""
    scan = _scan(find_place(settings, root), settings)
    if settings.images is not None and settings.masks is not None:
        listed = list_pairs_by_patterns(scan, settings.images, settings.masks)
    else:
        listed = list_pairs(scan)
    palette = _palette(scan, settings.classes)
    if palette is None:
        raise DataError(
            f"{scan.root} has no {TABLE}: give `id,name`, or `name,r,g,b`, a row a class, or set "
            "`classes: auto` to take the numbers in the masks"
        )
    return _from_pairs(scan, listed, palette, settings.page)


def read_voc(settings: Settings, root: Path | None) -> Source:
    """Read Pascal VOC's form: JPEGImages, SegmentationClass, lists in ImageSets/Segmentation."""
    place = find_voc(find_place(settings, root))
    scan = _scan(place, settings)
    listed = list_voc(scan)
    palette = _palette(scan, settings.classes) or named_by_lines(place) or VOC
    return _from_pairs(scan, listed, palette, settings.page)


def _scan(folder: Path, settings: Settings) -> Scan:
    """Return the scan of a folder in which the table of classes is no file that is passed over."""
    return Scan(folder, frozenset((TABLE, settings.classes or TABLE)))


def _palette(scan: Scan, classes: str | None) -> Palette | None:
    """Return the classes of the table; with `auto` none, until the masks are looked at. None where
    the folder has no table and none is named."""
    if classes == AUTO:
        return Palette(())
    table = scan.root / (TABLE if classes is None else classes)
    if table.exists() and not table.is_dir():
        return read_palette(table)
    if classes is None:
        return None
    raise DataError(f"{table}: no such file: correct `classes`, a table below `path`, or `auto`")


def numbers_of(files: Sequence[Path]) -> list[Held]:
    """Return the numbers that each mask holds, or why it cannot be read."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(numbers_or_reason, files))


def numbers_or_reason(mask: Path) -> Held:
    """Return the numbers in a mask, or why it cannot be read: the check of all masks names it."""
    try:
        return mask_numbers(mask)
    except UnreadableImage as error:
        return str(error)


def numbered(source: Source, look: Look, page: int | None) -> Source:
    """Return a source with a class for each number in its masks, called by it; 255 does not count,
    unless it is one of two.

    look: what reads the masks; page: of the images. Raises DataError where there are too few
    numbers, or too many.
    """
    if source.masks is None or not source.masks.numbered:
        return source
    images, masks = source.files, source.masks.files
    held = look(masks)
    reasons = [f"{mask}: {h}" for mask, h in zip(masks, held, strict=True) if isinstance(h, str)]
    numbers = sorted({number for h in held if not isinstance(h, str) for number in h})
    counted = [number for number in numbers if number != IGNORED or len(numbers) < 3]
    if len(counted) < 2 or len(counted) > MOST_CLASSES:
        first = f", and {reasons[0]}" if reasons else ""
        raise DataError(
            f"masks in {masks[0].parent} hold {len(counted)} numbers that count{first}: `classes: "
            f"auto` needs 2 to {MOST_CLASSES}: give a table, {TABLE}"
        )
    left_out = " (255 does not count)" if len(counted) < len(numbers) else ""
    note = f"classes are the {len(counted)} numbers in the masks{left_out}"
    palette = Palette(tuple(map(str, counted)), numbers=tuple(counted))
    decode = lambda k: read_pair_mask(images[k], masks[k], palette, page)  # noqa: E731
    return replace(
        source,
        classes=palette.names,
        masks=Masks(masks, decode, palette),
        notes=(*source.notes, note),
    )


def _from_pairs(scan: Scan, listed: dict[str, Pairs], palette: Palette, page: int | None) -> Source:
    """Return the images and masks of a folder. page: of the images, as of `Reading`."""
    folder, listed = scan.root, without_validation(listed)
    safe = safe_names(palette.names)
    renamed = [f"{n!r} is {s}" for n, s in zip(palette.names, safe, strict=True) if n != s]
    if renamed:
        scan.notes.append(f"classes have other names in metrics: {few(renamed)}")
    palette = replace(palette, names=safe)
    pairs = [pair for part in listed.values() for pair in part]
    ends = np.cumsum([len(part) for part in listed.values()])
    parts = {
        part: np.arange(end - len(listed[part]), end)
        for part, end in zip(listed, ends, strict=True)
    }
    images, masks = ([folder / pair[k] for pair in pairs] for k in (0, 1))
    return Source(
        classes=palette.names,
        names=[image for image, _ in pairs],
        labels=np.full(len(pairs), -1, dtype=np.int64),
        parts=parts,
        files=images,
        decode=lambda index: open_pair_image(images[index], masks[index]),
        masks=Masks(
            masks,
            lambda k: read_pair_mask(images[k], masks[k], palette, page),
            palette,
            numbered=not palette.names,
        ),
        passed_over=scan.passed,
        notes=tuple(scan.notes),
    )
