"""Reads images that lie in folders of any name, or that a CSV file lists."""

from pathlib import Path

from trainables.data.contract import Settings, Source, find_place, from_listing
from trainables.dataset import DataError
from trainables.layouts.class_folders import list_domains, list_images, list_unlabelled
from trainables.layouts.csv_lists import list_csv
from trainables.layouts.folders import Scan
from trainables.layouts.name_labels import list_by_name

FROM_NAME = "from_name"  # value of `labels`


def read_image_folder(settings: Settings, root: Path | None) -> Source:
    """Read class folders, images named by their class, or without `labels` all images."""
    scan = Scan(find_place(settings, root))
    if settings.domains is not None:
        listing = list_domains(scan, settings.domains, known=None)
    elif settings.labels == FROM_NAME:
        listing = list_by_name(scan, settings.name_pattern)
    else:
        listing = list_images(scan) if settings.labels else list_unlabelled(scan)
    return from_listing(scan.root, listing, scan)


def read_csv(settings: Settings, root: Path | None, join: bool = False) -> Source:
    """Read a .csv file, or a folder with train.csv, and the images that it lists.

    join: take splits together whose classes are all different, as Mini-ImageNet's are.
    """
    place = find_place(settings, root, file=True)
    if settings.labels == FROM_NAME:
        raise DataError(f"{place}: `labels: from_name` is for folders of images: remove it")
    scan = Scan(place if place.is_dir() else place.parent)
    group = settings.split.column if settings.split else None
    listing = list_csv(place, bool(settings.labels), scan, join=join, group=group)
    return from_listing(scan.root, listing, scan)
