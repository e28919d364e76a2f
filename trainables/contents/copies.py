"""Finds images of equal content: a test image that is trained on says nothing about new images."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from trainables.data.contract import Source
from trainables.dataset import DataError, Indices, few
from trainables.pixels.images import UnreadableImage

OnDuplicates = Literal["error", "drop", "keep"]
JUDGED = ("test", "val", "train")  # a copy stays in the first of these that has it
_EMPTY = hashlib.sha256(b"").hexdigest()  # files without content are damaged, not copies
_DROPPED = "`on_duplicates: drop`"
KEPT = "`on_duplicates: keep`"
Pairs = list[tuple[str, str]]  # names of images of equal content


@dataclass(frozen=True)
class Settled:
    """Holds a data set whose copies are settled.

    contents: a hash of each image, "" where it is no copy of anything, as an empty tile; cautions:
    a line on each kind of copies that stays, for all who read its figures.
    """

    source: Source
    contents: tuple[str, ...]
    cautions: tuple[str, ...] = ()


def settle_copies(source: Source, contents: Sequence[str], on_duplicates: OnDuplicates) -> Settled:
    """Refuse images of equal content in two parts or with two labels, drop them, or keep them.

    contents: a hash of each image. Other copies are noted. Raises DataError where they are refused:
    it names pairs and the cure.
    """
    known = _comparable(source, contents)
    unique = [content or f"{row}" for row, content in enumerate(known)]
    source = kept_together(source, unique)
    if on_duplicates == "drop":
        source = without_copies(source, unique)
    found = {**copies_over_parts(source, unique), **copies_with_two_labels(source, unique)}
    if found and on_duplicates == "error":
        raise DataError("; ".join(f"{fault}: {cure}" for fault, cure in found.items()))
    if note := note_of_copies(source, unique):
        source = replace(source, notes=(*source.notes, note))
    return Settled(source, tuple(known), tuple(f"{fault}; kept ({KEPT})" for fault in found))


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
    copies = "copies of training images are" if count > 1 else "copy of a training image is"
    note = f"{count} {copies} trained on, not used for validation and test"
    return replace(source, parts=parts, notes=(*source.notes, note))


def copies_over_parts(source: Source, contents: Sequence[str]) -> dict[str, str]:
    """Return what is wrong with each two parts that share images → the cure."""
    faults = {}
    for place, part in enumerate(JUDGED):
        for other in JUDGED[place + 1 :]:
            shared = shared_pairs(
                first_names(source, contents, part), first_names(source, contents, other)
            )
            if shared:
                count, total = len(shared), len(source.parts[part])
                fault = (
                    f"{count} of {total} {part} images {'are' if count > 1 else 'is'} in {other} "
                    f"too, by content ({pairs_text(shared)})"
                )
                faults[fault] = (
                    f"remove one of each, or set {_DROPPED} to leave "
                    f"{'them' if count > 1 else 'it'} out of {other}, or `keep`"
                )
    return faults


def copies_with_two_labels(source: Source, contents: Sequence[str]) -> dict[str, str]:
    """Return what is wrong with images of equal content that have two labels → the cure; empty
    where there are none."""
    used = [int(row) for part in source.parts.values() for row in part]
    twice = [(names[0], names[1]) for names in _contradictions(source, contents, used).values()]
    if not twice:
        return {}
    several = len(twice) > 1
    fault = (
        f"{len(twice)} image{'s' if several else ''} of equal content "
        f"{'have' if several else 'has'} two labels ({pairs_text(twice)})"
    )
    return {fault: f"keep the right one of each, or set {_DROPPED} to leave both out, or `keep`"}


def without_copies(source: Source, contents: Sequence[str]) -> Source:
    """Leave out images that are in a part which judges them, and those with two labels in a part.

    A copy stays in `test`, else in `val`. Raises DataError where no image of a class or of a part
    is left.
    """
    parts: dict[str, Indices] = {}
    taken: set[str] = set()
    for part in JUDGED:
        rows = source.parts[part].tolist()
        twice = _contradictions(source, contents, rows)
        left = [row for row in rows if contents[row] not in taken and contents[row] not in twice]
        parts[part] = np.array(left, dtype=np.int64)
        taken |= {contents[row] for row in rows}
    return _with_parts(source, parts, _DROPPED)


def without_training_on(source: Source, judged: Iterable[str], contents: Sequence[str]) -> Source:
    """Leave images out of training whose content is in `judged`: images by which a stage that
    starts from it is validated or tested. Raises DataError where no image of a class is left."""
    judged = set(judged) - {""}
    rows = [row for row in source.parts["train"].tolist() if contents[row] not in judged]
    reason = f"{_DROPPED}: later stages are validated or tested by them"
    return _with_parts(source, source.parts | {"train": np.array(rows, dtype=np.int64)}, reason)


def _with_parts(source: Source, parts: Mapping[str, Indices], reason: str) -> Source:
    """Return a source with smaller parts, and a note on how many images of which are left out."""
    left = {source.labels[row] for row in parts["train"]}
    gone = [part for part in JUDGED if not len(parts[part]) and len(source.parts[part])]
    if source.labelled:
        gone += [f"class {n!r} of train" for k, n in enumerate(source.classes) if k not in left]
    if gone:
        raise DataError(
            f"all images of {few(gone)} are copies of others: give it images of its own"
        )
    counts = {part: len(rows) - len(parts[part]) for part, rows in source.parts.items()}
    shown = ", ".join(f"{count} of {part}" for part, count in counts.items() if count)
    if not shown:
        return source
    notes = (*source.notes, f"copies are left out: {shown} ({reason})")
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


def first_names(source: Source, contents: Sequence[str], part: str) -> dict[str, str]:
    """Return of a part hash → the name of the first image with it; "" is no hash."""
    names: dict[str, str] = {}
    for row in source.parts[part].tolist():
        if contents[row]:
            names.setdefault(contents[row], source.names[row])
    return names


def _comparable(source: Source, contents: Sequence[str]) -> list[str]:
    """Return the hash of each image, "" for one that is no copy: a file without content, and of a
    set with masks a tile of one color that others are too."""
    no_copies = {_EMPTY} | (_blank(source, contents) if source.masks else set())
    return ["" if content in no_copies else content for content in contents]


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


def _contradictions(
    source: Source, contents: Sequence[str], rows: Iterable[int]
) -> dict[str, list[str]]:
    """Return hash → names of the images of equal content with different labels, one a label."""
    labels, by_content = source.labels.tolist(), dict[str, dict[int, str]]()
    for row in rows:
        by_content.setdefault(contents[row], {}).setdefault(labels[row], source.names[row])
    return {
        content: list(found.values()) for content, found in by_content.items() if len(found) > 1
    }
