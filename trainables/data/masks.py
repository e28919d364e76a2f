"""Finds the files of data sets with masks: pairs of an image and a mask, and a table of classes.

Pairs have two forms, each alone or inside split folders: `NNNN_sat.jpg` beside `NNNN_mask.png`
(DeepGlobe's), or folders `images` and `masks` with equal names. What a mask
holds is the table's matter: `pixels/class_table.py`.
"""

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
from trainables.dataset import DataError
from trainables.layouts.folders import Scan
from trainables.layouts.mask_pairs import Pairs, list_pairs
from trainables.pixels.class_table import DEEPGLOBE, TABLE, is_pure, read_palette
from trainables.pixels.pairs import open_pair_image, read_pair_mask
from trainables.pixels.palette import Palette

_KNOWN = frozenset((TABLE,))  # read in another way than images


def read_deepglobe(settings: Settings, root: Path | None) -> Source:
    """Read NNNN_sat.jpg beside NNNN_mask.png, in the colors of classes.csv, else of DeepGlobe."""
    folder = find_place(settings, root)
    table = folder / TABLE
    palette = read_palette(table) if table.is_file() else DEEPGLOBE
    scan = Scan(folder, _KNOWN)
    return _from_pairs(scan, list_pairs(scan), replace(palette, rounded=is_pure(palette)))


def read_mask_folders(settings: Settings, root: Path | None) -> Source:
    """Read folders `images` and `masks`, and classes.csv, which says what a mask holds."""
    folder = find_place(settings, root)
    if not (folder / TABLE).is_file():
        raise DataError(f"{folder} has no {TABLE}: give `id,name`, or `name,r,g,b`, a row a class")
    scan = Scan(folder, _KNOWN)
    return _from_pairs(scan, list_pairs(scan), read_palette(folder / TABLE))


def _from_pairs(scan: Scan, listed: dict[str, Pairs], palette: Palette) -> Source:
    """Return the images and masks of a folder."""
    folder, listed = scan.root, without_validation(listed)
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
