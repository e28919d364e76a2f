"""Finds images of equal content: a test image that is trained on says nothing about new images."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from trainables.data.contract import Source
from trainables.dataset import DataError, few
from trainables.pixels.images import UnreadableImage

_JUDGED = ("test", "val", "train")  # a copy stays in the first of these that has it
_EMPTY = hashlib.sha256(b"").hexdigest()  # files without content are damaged, not copies
Pairs = list[tuple[str, str]]  # names of images of equal content


def settle_copies(
    source: Source, contents: Sequence[str], on_copies: Literal["fail", "drop"]
) -> Source:
    """Refuse copies over parts and under two labels with a DataError, or drop them; note others.

    contents: a hash of each image.
    """
    no_copies = {_EMPTY} | (_blank(source, contents) if source.masks else set())
    contents = [
        f"{row}" if content in no_copies else content for row, content in enumerate(contents)
    ]
    if on_copies == "drop":
        source = without_copies(source, contents)
    elif errors := check_copies(source, contents):
        raise DataError("; ".join(errors))
    note = note_of_copies(source, contents)
    return replace(source, notes=(*source.notes, note)) if note else source


def check_copies(source: Source, contents: Sequence[str]) -> list[str]:
    """Return an error for each two parts that share images, and for images with two labels.

    contents: a hash of each image. The errors name pairs and the cure.
    """
    errors = []
    rows = _first_rows(source, contents)
    for place, part in enumerate(_JUDGED):
        for other in _JUDGED[place + 1 :]:
            shared = shared_pairs(rows[part], rows[other])
            if shared:
                count, total = len(shared), len(source.parts[part])
                errors.append(
                    f"{count} of {total} {part} images {_are(count)} in {other} too, by content "
                    f"({pairs_text(shared)}): remove one of each, or set `on_copies: drop` to "
                    f"leave {'them' if count > 1 else 'it'} out of {other}"
                )
    twice = [(names[0], names[1]) for names in _contradictions(source, contents).values()]
    if twice and not errors:
        errors.append(
            f"{len(twice)} image{'s' if len(twice) > 1 else ''} of equal content "
            f"{'have' if len(twice) > 1 else 'has'} two labels ({pairs_text(twice)}): keep the "
            "right one of each, or set `on_copies: drop` to leave both out"
        )
    return errors


def without_copies(source: Source, contents: Sequence[str]) -> Source:
    """Leave out images that are in a part which judges them, and all that have two labels.

    A copy stays in `test`, else in `val`. Raises DataError where no image of a class or of a part
    is left.
    """
    parts, taken = {}, set(_contradictions(source, contents))
    for part in _JUDGED:
        rows = [int(row) for row in source.parts[part] if contents[row] not in taken]
        parts[part] = np.array(rows, dtype=np.int64)
        taken |= {contents[row] for row in rows}
    left = {source.labels[row] for row in parts["train"]}
    gone = [part for part in _JUDGED if not len(parts[part])]
    if source.labelled:
        gone += [f"class {n!r} of train" for k, n in enumerate(source.classes) if k not in left]
    if gone:
        raise DataError(
            f"all images of {few(gone)} are copies of others: give it images of its own"
        )
    count = sum(len(rows) for rows in source.parts.values()) - sum(map(len, parts.values()))
    if not count:
        return source
    notes = (*source.notes, f"{count} copies are left out (`on_copies: drop`)")
    return replace(source, parts={part: parts[part] for part in source.parts}, notes=notes)


def note_of_copies(source: Source, contents: Sequence[str]) -> str | None:
    """Say how many images are copies of others in their own part; None where there are none."""
    inside = {
        part: len(rows) - len({contents[row] for row in rows})
        for part, rows in source.parts.items()
    }
    shown = [f"{count} in {part}" for part, count in inside.items() if count]
    return f"copies of other images of the same part: {', '.join(shown)}" if shown else None


def shared_pairs(own: Mapping[str, str], others: Mapping[str, str]) -> Pairs:
    """Return the names of images that both have. own, others: hash of the content → name."""
    return [(name, others[content]) for content, name in own.items() if content in others]


def pairs_text(shared: Pairs) -> str:
    """Return the first pairs for a message: `test/1.jpg = train/7.jpg`."""
    return few([f"{own} = {other}" for own, other in shared], most=3)


def _blank(source: Source, contents: Sequence[str]) -> set[str]:
    """Return the contents that several images have and that are one color: empty tiles, not
    copies."""
    rows = {content: row for row, content in enumerate(contents)}
    several = {content for content, times in Counter(contents).items() if times > 1}
    blank = set()
    for content in several - {_EMPTY}:
        try:
            pixels = np.asarray(source.decode(rows[content]))
        except UnreadableImage:
            continue  # the cache names it
        if (pixels == pixels[0, 0]).all():
            blank.add(content)
    return blank


def _are(count: int) -> str:
    return "are" if count > 1 else "is"


def _first_rows(source: Source, contents: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return part → hash → the first image with it."""
    rows: dict[str, dict[str, str]] = {}
    for part, indices in source.parts.items():
        rows[part] = {}
        for row in indices:
            rows[part].setdefault(contents[row], source.names[row])
    return rows


def _contradictions(source: Source, contents: Sequence[str]) -> dict[str, list[str]]:
    """Return hash → names of the images of equal content with different labels, one a label."""
    by_content: dict[str, dict[int, str]] = {}
    for content, label, name in zip(contents, source.labels.tolist(), source.names, strict=True):
        by_content.setdefault(content, {}).setdefault(label, name)
    return {
        content: list(found.values()) for content, found in by_content.items() if len(found) > 1
    }
