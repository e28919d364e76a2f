"""Cuts a set into folds: stratified, or by groups of images that belong together, such as the
images of one patient."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from trainables.config import Config
from trainables.data.contract import Source
from trainables.data.splits import TEST_FRACTION, class_counts, limited
from trainables.dataset import DataError, Indices, few
from trainables.numerics.seeds import permutation

PartName = Literal["train", "val", "test"]
_MARKS = re.compile(r"(\{group\}|\{number\}|\*)")
_MEANING = {"{group}": "([^/]+?)", "{number}": "[0-9]+", "*": "[^/]*"}


class Split(Config):
    """Says that the images of a group are never in two parts; `pattern` or `column` finds it."""

    by: Literal["group"] = Field(description="what stays together")
    pattern: str | None = Field(
        None,
        description="where the group stands at the end of a path without the ending of the file, "
        "such as `{group}_*` or `{group}/*`; `*` is any text of one name, `{number}` digits",
    )
    column: str | None = Field(None, description="the column of the .csv file with the group")

    @model_validator(mode="after")
    def _names_the_group(self) -> "Split":
        if (self.pattern is None) == (self.column is None):
            raise ValueError("needs `pattern` (of the path) or `column` (of a .csv file), one")
        if self.pattern is not None and self.pattern.count("{group}") != 1:
            raise ValueError(
                f"pattern {self.pattern!r} must have `{{group}}` once, as in '{{group}}_*'"
            )
        return self


class FoldSettings(Protocol):
    """The part of a data set's configuration that decides its folds."""

    @property
    def split(self) -> Split | None: ...
    @property
    def folds(self) -> int | None: ...
    @property
    def fold(self) -> int | None: ...
    @property
    def val_fraction(self) -> float: ...
    @property
    def split_seed(self) -> int: ...


@dataclass(frozen=True)
class FoldCuts:
    """Holds what decides the parts.

    groups: the group of each image, None where each is its own; count, fold: which of how many
    folds is the test, None for one of five; val_fraction: share of the other images in (0, 0.5];
    seed: of the draw.
    """

    groups: Sequence[str] | None
    count: int | None
    fold: int
    val_fraction: float
    seed: int


def in_folds(
    source: Source, config: FoldSettings, limit: int | Mapping[PartName, int] | None
) -> Source:
    """Return a source whose parts are cut by groups or folds, with notes on them.

    Its copies do not move to another part, as those of other cuts may: that would mix groups.
    limit: most training images, validation included, or most of each part. Raises DataError.
    """
    if config.folds is not None and config.fold is None:
        raise DataError(
            f"{config.folds} folds, and none is the test: give `fold`; in a study each seed has one"
        )
    pattern = config.split.pattern if config.split else None
    groups = groups_by_pattern(source.names, pattern) if pattern else source.groups or None
    classes = source.classes if source.labelled else ()
    fold = config.fold or 0
    cuts = FoldCuts(groups, config.folds, fold, config.val_fraction, config.split_seed)
    parts = complete_by_folds(source.parts, source.labels, classes, cuts)
    most: Mapping[PartName, int] = limit if isinstance(limit, Mapping) else {}
    if isinstance(limit, int):
        held_out = 0 if "val" in source.parts else max(1, round(limit * config.val_fraction))
        most = {"train": limit - held_out, **({"val": held_out} if held_out else {})}
    limits = {str(part): number for part, number in most.items()}
    parts = limited(parts, source.labels, classes, limits, config.split_seed)
    notes = [note_of_groups(parts, groups)] if groups else []
    notes += filter(None, [note_of_classes(parts, source.labels, classes)])
    return replace(source, parts=parts, groups=(), notes=(*source.notes, *notes))


def groups_by_pattern(names: Sequence[str], pattern: str) -> list[str]:
    """Return the group of each image, from the end of its path without the ending of the file.

    pattern: such as `{group}_*` or `{group}/*`; `*` is any text of one name, `{number}` digits.
    Raises DataError for names that do not fit.
    """
    form = re.compile("".join(_MEANING.get(p, re.escape(p)) for p in _MARKS.split(pattern)))
    depth = pattern.count("/") + 1
    found, misfits = [], []
    for name in names:
        path = PurePosixPath(name).with_suffix("")
        match = form.fullmatch("/".join(path.parts[-depth:]))
        if match is None:
            misfits.append(name)
        else:
            found.append(match[1])
    if misfits:
        raise DataError(
            f"{len(misfits)} of {len(names)} images do not fit split.pattern {pattern!r} "
            f"({few(misfits)}): correct it"
        )
    return found


def complete_by_folds(
    parts: Mapping[str, Indices], labels: Indices, classes: Sequence[str], cuts: FoldCuts
) -> dict[str, Indices]:
    """Return the given parts, plus a test and a validation part where they are missing.

    labels: (N,) of the whole set. Without classes the set is cut as if it were one class. Raises
    DataError where a group is in two given parts, or a class or a part is left without images.
    """
    ids = labels if classes else np.zeros_like(labels)
    numbers = _numbered(cuts.groups, len(labels))
    _check_given(parts, cuts)
    train, test, val = parts["train"], parts.get("test"), parts.get("val")

    def one_fold(rows: Indices, count: int, fold: int, purpose: str) -> tuple[Indices, Indices]:
        if numbers is None:
            dealt = stratified_folds(ids[rows], count, (purpose, cuts.seed))
        else:
            dealt = grouped_folds(ids[rows], numbers[rows], count, (purpose, cuts.seed))
        return rows[dealt != fold], rows[dealt == fold]

    if test is None:
        count = cuts.count or _folds_with_all_classes(ids, numbers, train, TEST_FRACTION)
        train, test = one_fold(train, count, cuts.fold if cuts.count else 0, "test")
    if val is None:
        count = _folds_with_all_classes(ids, numbers, train, cuts.val_fraction)
        train, val = one_fold(train, count, 0, "val")
    cut = {"train": train, "val": val, "test": test}
    _check_cut(cut, ids, classes, cuts)
    return cut


def _folds_with_all_classes(
    ids: Indices, numbers: Indices | None, rows: Indices, share: float
) -> int:
    """Return how many folds have a share of the images each. Where a class is in fewer groups, they
    are fewer, by half at most, so that each may have all classes."""
    count = max(2, round(1 / share))
    if numbers is None:
        return count
    pairs = np.unique(np.stack([ids[rows], numbers[rows]]), axis=1)
    groups = int(np.unique(pairs[0], return_counts=True)[1].min())
    return max(2, min(count, max(groups, -(-count // 2))))


def stratified_folds(labels: Indices, count: int, draw: tuple[str, int]) -> Indices:
    """Return the fold of each image in [0, count): labels (n,) → (n,).

    The images of each class are shuffled, then all are dealt out in turn: folds differ by one image
    at most, and by one of each class.
    """
    order = permutation(len(labels), "folds", *draw)
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % count
    return folds


def grouped_folds(labels: Indices, groups: Indices, count: int, draw: tuple[str, int]) -> Indices:
    """Return the fold of each image in [0, count), the same for all images of a group.

    labels, groups: (n,) whole numbers. One group after the other, those of uneven classes first,
    goes where the shares of the classes over the folds become most even, as in scikit-learn's
    StratifiedGroupKFold.
    """
    names, members = np.unique(groups, return_inverse=True)
    kinds, kind = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(kinds)))  # images of each class in each group
    np.add.at(counts, (members, kind), 1)
    shuffled = permutation(len(names), "groups", *draw)
    order = shuffled[np.argsort(-counts[shuffled].std(1), kind="stable")]
    shares = counts / counts.sum(0)
    held = np.zeros((count, len(kinds)))  # share of each class in each fold
    sizes = np.zeros(count)
    fold_of = np.empty(len(names), np.int64)
    for group in order:
        added = held + shares[group]
        # the variance over folds, where the group is added to each fold in turn
        squares = (held**2).sum(0) - held**2 + added**2
        mean = (held.sum(0) + shares[group]) / count
        spread = np.sqrt(np.maximum(squares / count - mean**2, 0)).mean(1)
        best = np.flatnonzero(spread <= spread.min() + 1e-12)
        fold = int(best[np.argmin(sizes[best])])
        fold_of[group] = fold
        held[fold] += shares[group]
        sizes[fold] += counts[group].sum()
    folds: Indices = fold_of[members]
    return folds


def _numbered(groups: Sequence[str] | None, count: int) -> Indices | None:
    """Return the number of each image's group, in the order of their names."""
    if groups is None:
        return None
    _, numbers = np.unique(np.array(groups, dtype=str), return_inverse=True)
    numbered: Indices = numbers.astype(np.int64).reshape(count)
    return numbered


def _check_given(parts: Mapping[str, Indices], cuts: FoldCuts) -> None:
    if cuts.count and "test" in parts:
        raise DataError(
            "the data set has a test part of its own, and `folds` cuts it from all images: remove "
            "`folds`, or put all images together"
        )
    if cuts.count and cuts.count > len(parts["train"]):
        raise DataError(f"{cuts.count} folds of {len(parts['train'])} images: set folds to less")
    if cuts.groups is None:
        return
    held = {part: {cuts.groups[row] for row in rows} for part, rows in parts.items()}
    names = list(held)
    for place, part in enumerate(names):
        for other in names[place + 1 :]:
            if shared := sorted(held[part] & held[other]):
                raise DataError(
                    f"{len(shared)} groups are in {part} and in {other} of the data set "
                    f"({few(shared)}): put each into one, or remove `split`"
                )
    if cuts.count and cuts.count > len(held["train"]):
        raise DataError(
            f"{cuts.count} folds of {len(held['train'])} groups: set folds to "
            f"{len(held['train'])} or less"
        )


def _check_cut(
    cut: Mapping[str, Indices], ids: Indices, classes: Sequence[str], cuts: FoldCuts
) -> None:
    what = "images" if cuts.groups is None else "groups"
    if empty := [part for part, rows in cut.items() if not len(rows)]:
        raise DataError(f"there are too few {what}: none is left for {few(empty)}")
    counts = class_counts(ids[cut["train"]], max(1, len(classes)))
    if lacking := [repr(name) for name, n in zip(classes, counts, strict=False) if not n]:
        raise DataError(
            f"no training image is left of class {few(lacking)}: all are in {what} that validate "
            "or test. Set another `split_seed`, or add some"
        )


def note_of_groups(parts: Mapping[str, Indices], groups: Sequence[str]) -> str:
    """Return how many groups each part has: `groups: 26 in train, 3 in val, 8 in test`."""
    counts = {part: len({groups[row] for row in rows}) for part, rows in parts.items()}
    return f"groups: {', '.join(f'{count} in {part}' for part, count in counts.items())}"


def note_of_classes(
    parts: Mapping[str, Indices], labels: Indices, classes: Sequence[str]
) -> str | None:
    """Warn of classes without an image in validation or test; None where all have some."""
    lacking = []
    for part in ("val", "test"):
        counts = class_counts(labels[parts[part]], len(classes)) if classes else ()
        if names := [repr(n) for n, k in zip(classes, counts, strict=True) if not k]:
            lacking.append(f"{part} has no image of {few(names)}")
    return f"warning: {'; '.join(lacking)}" if lacking else None
