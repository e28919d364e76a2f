"""Lists images whose class is a part of their file name: `3_17.png`, `cat.0.jpg`."""

import re
from pathlib import PurePosixPath

from trainables.dataset import DataError, few
from trainables.layouts.class_folders import check_same_classes, in_order, list_unlabelled
from trainables.layouts.folders import Listing, Scan

_MARKS = re.compile(r"(\{label\}|\{number\}|\*|\?)")
_MEANING = {"{label}": "(.+?)", "{number}": "[0-9]+", "*": ".*", "?": "."}


def list_by_name(scan: Scan, pattern: str) -> Listing:
    """List all images below a folder, or its split folders, by the class in their names.

    pattern: of the name without folders and ending, see `check_pattern`. Raises DataError for
    names that do not fit, and OSError as it comes.
    """
    form = re.compile("".join(_MEANING.get(p, re.escape(p)) for p in _MARKS.split(pattern)))
    listing: Listing = {}
    for part, images in list_unlabelled(scan).items():
        listing[part] = {}
        misfits = []
        for image in images[""]:
            match = form.fullmatch(PurePosixPath(image).stem)
            if match is None:
                misfits.append(image)
            else:
                listing[part].setdefault(match[1], []).append(image)
        if misfits:
            names, them = (
                ("names that do", "them") if len(misfits) > 1 else ("name that does", "it")
            )
            raise DataError(
                f"{scan.root} has {len(misfits)} {names} not fit {pattern!r} ({few(misfits)}): "
                f"correct `name_pattern`, or move {them} away"
            )
    check_same_classes(scan.root, listing)
    classes = in_order(listing["train"])
    return {part: {name: listing[part][name] for name in classes} for part in listing}


def check_pattern(pattern: str) -> None:
    """Raise ValueError for a pattern without exactly one `{label}`."""
    if pattern.count("{label}") != 1:
        raise ValueError(
            f"name_pattern {pattern!r} must have `{{label}}` once, as in '{{label}}_*'"
        )
