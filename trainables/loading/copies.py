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
    source = kept_together(source, contents)
    if on_copies == "drop":
        source = without_copies(source, contents)
    elif errors := check_copies(source, contents):
        raise DataError("; ".join(errors))
    notes = (note_of_copies(source, contents), note_of_labels(source, contents))
    return replace(source, notes=(*source.notes, *(note for note in notes if note)))


def kept_together(source: Source, contents: Sequence[str]) -> Source:
    """Train on the copies of an image of which some were cut into validation or test.

    Where the data set has these parts itself, all stay as they are.
    """
    movable = {"train", *source.cut}
    where: dict[str, set[str]] = {}
    for part, rows in source.parts.items():
        for row in rows:
            where.setdefault(contents[row], set()).add(part)
    moved = {content for content, parts in where.items() if len(parts) > 1 and parts <= movable}
    if not moved:
        return source
    parts = {
        part: np.array([r for r in rows if contents[r] not in moved], np.int64)
        for part, rows in source.parts.items()
    }
    used = {int(row) for part, rows in parts.items() if part != "train" for row in rows}
    every = np.concatenate(list(source.parts.values()))
    inside = set(source.parts["train"].tolist())
    train = [r for r in every.tolist() if r in inside or (r not in used and contents[r] in moved)]
    parts["train"] = np.array(sorted(train), np.int64)
    gone = [part for part, rows in parts.items() if not len(rows)]
    if gone:
        raise DataError(f"all images of {few(gone)} are copies of others: remove the copies")
    count = sum(len(source.parts[part]) - len(parts[part]) for part in source.cut)
    note = f"{count} copies of training images are trained on, not used for validation and test"
    return replace(source, parts=parts, notes=(*source.notes, note))


def check_copies(source: Source, contents: Sequence[str]) -> list[str]:
    """Return an error for each two parts that share images.

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
    return errors


def note_of_labels(source: Source, contents: Sequence[str]) -> str | None:
    """Warn of images of equal content with two labels in one part; None where there are none."""
    used = {int(row) for rows in source.parts.values() for row in rows}
    left = [content if row in used else f"{row}" for row, content in enumerate(contents)]
    twice = [(names[0], names[1]) for names in _contradictions(source, left).values()]
    if not twice:
        return None
    several = len(twice) > 1
    return (
        f"warning: {len(twice)} image{'s' if several else ''} of equal content "
        f"{'have' if several else 'has'} two labels ({pairs_text(twice)}): keep the right one of "
        "each, or set `on_copies: drop` to leave both out"
    )


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
