"""Finds the files of data sets with masks: pairs of an image and a mask, and a table of classes.

How pairs lie is the matter of `layouts/mask_pairs.py` and `layouts/voc.py`, what a mask holds that
of `pixels/class_table.py`.
"""

import os
from collections.abc import Sequence
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


def read_deepglobe(settings: Settings, root: Path | None) -> Source:
    """Read NNNN_sat.jpg beside NNNN_mask.png, in the colors of classes.csv, else of DeepGlobe."""
    scan = _scan(find_place(settings, root), settings)
    listed = list_pairs(scan)
    palette = _palette(scan, settings.classes, listed) or DEEPGLOBE
    return _from_pairs(scan, listed, replace(palette, rounded=is_pure(palette)))


def read_mask_folders(settings: Settings, root: Path | None) -> Source:
    """Read folders of images and of masks, and a table of classes that says what a mask holds."""
    scan = _scan(find_place(settings, root), settings)
    if settings.images is not None and settings.masks is not None:
        listed = list_pairs_by_patterns(scan, settings.images, settings.masks)
    else:
        listed = list_pairs(scan)
    palette = _palette(scan, settings.classes, listed)
    if palette is None:
        raise DataError(
            f"{scan.root} has no {TABLE}: give `id,name`, or `name,r,g,b`, a row a class, or set "
            "`classes: auto` to take the numbers in the masks"
        )
    return _from_pairs(scan, listed, palette)


def read_voc(settings: Settings, root: Path | None) -> Source:
    """Read Pascal VOC's form: JPEGImages, SegmentationClass, lists in ImageSets/Segmentation."""
    place = find_voc(find_place(settings, root))
    scan = _scan(place, settings)
    listed = list_voc(scan)
    palette = _palette(scan, settings.classes, listed) or named_by_lines(place) or VOC
    return _from_pairs(scan, listed, palette)


def _scan(folder: Path, settings: Settings) -> Scan:
    """Return the scan of a folder in which the table of classes is no file that is passed over."""
    return Scan(folder, frozenset((TABLE, settings.classes or TABLE)))


def _palette(scan: Scan, classes: str | None, listed: dict[str, Pairs]) -> Palette | None:
    """Return the classes of the table, or with `auto` of the numbers in the masks; None where the
    folder has no table and none is named."""
    table = scan.root / (TABLE if classes in (None, AUTO) else str(classes))
    if classes == AUTO:
        return _numbered(scan, [mask for pairs in listed.values() for _, mask in pairs])
    if table.is_file():
        return read_palette(table)
    if classes is None:
        return None
    raise DataError(f"{table}: no such file: correct `classes`, a table below `path`, or `auto`")


def _numbered(scan: Scan, masks: Sequence[str]) -> Palette:
    """Return a class for each number in the masks, called by it; 255 does not count, unless it is
    one of two."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        held = list(pool.map(lambda mask: _numbers_or_reason(scan.root / mask), masks))
    reasons = [f"{mask}: {h}" for mask, h in zip(masks, held, strict=True) if isinstance(h, str)]
    numbers = sorted({number for h in held if not isinstance(h, str) for number in h})
    counted = [number for number in numbers if number != IGNORED or len(numbers) < 3]
    if len(counted) < 2 or len(counted) > MOST_CLASSES:
        first = f", and {reasons[0]}" if reasons else ""
        raise DataError(
            f"masks of {scan.root} hold {len(counted)} numbers that count{first}: `classes: auto` "
            f"needs 2 to {MOST_CLASSES}: give a table, {TABLE}"
        )
    left_out = " (255 does not count)" if len(counted) < len(numbers) else ""
    scan.notes.append(f"classes are the {len(counted)} numbers in the masks{left_out}")
    return Palette(tuple(map(str, counted)), numbers=tuple(counted))


def _numbers_or_reason(mask: Path) -> frozenset[int] | str:
    try:
        return mask_numbers(mask)
    except UnreadableImage as error:
        return str(error)  # the check of all masks names it


def _from_pairs(scan: Scan, listed: dict[str, Pairs], palette: Palette) -> Source:
    """Return the images and masks of a folder."""
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
        masks=Masks(masks, lambda k: read_pair_mask(images[k], masks[k], palette), palette),
        passed_over=scan.passed,
        notes=tuple(scan.notes),
    )
