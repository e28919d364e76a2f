"""Knows folders and files that are splits by their names: train, val_50, train2017, images_test."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from trainables.dataset import DataError, few
from trainables.layouts.folders import Scan

SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_NAMES |= {"val": "val", "valid": "val", "validation": "val"}
SPLIT_NAMES |= dict.fromkeys(  # shorter, and in other languages
    "trn entrenamiento entrainement entraînement apprentissage treino treinamento "
    "addestramento 训练 训练集".split(),
    "train",
)
SPLIT_NAMES |= dict.fromkeys(
    "dev devel eval evaluation validacion validación validacao validação validierung 验证 "
    "验证集".split(),
    "val",
)
SPLIT_NAMES |= dict.fromkeys("tst holdout heldout prueba pruebas teste 测试 测试集".split(), "test")
PARTS = ("train", "val", "test")
# words that say nothing about the content, so that "Training Data" is a split and "test tube" not
_EMPTY_WORDS = frozenset(
    "a all an and annotated b crop crops csv cut data dataset datasets file files final fold "
    "folder full gt image images img imgs jpeg jpg label labeled labelled labels list max min "
    "mini new of original part photo photographs photos pic pics picture pictures png raw "
    "resized sample samples seg set sets size small split splits subset the tiny v version x "
    "y".split()
)
_WORD = re.compile(r"[^\W\d_]+")


def part_of(name: str) -> str | None:
    """Return `train`, `val` or `test` where a name says that and nothing else; None for others.

    Known are words beside numbers and words without content: "val_50", "train2017", "Test Set",
    "imagesTrain".
    """
    part, rest = _read(name)
    return part if all(word in _EMPTY_WORDS for word in rest) else None


def named_as_splits(names: Iterable[str]) -> dict[str, str]:
    """Return name → part of the names that are splits, in order.

    Names that agree but for the split are splits too, whatever they say: "chest_train" and
    "chest_test".
    """
    read = {name: _read(name) for name in names}
    by_rest: dict[tuple[str, ...], set[str]] = {}
    for part, rest in read.values():
        if part is not None:
            by_rest.setdefault(rest, set()).add(part)
    return {
        name: part
        for name, (part, rest) in read.items()
        if part is not None
        and (all(word in _EMPTY_WORDS for word in rest) or len(by_rest[rest]) > 1)
    }


def split_folders(scan: Scan) -> dict[str, str]:
    """Return part → prefix of its folder, `train` first; {"train": ""} where there are none.

    One folder with exactly a split's name and images in it may be a class ("train" among vehicles).
    Other folders beside splits are counted as passed over. Raises DataError for splits that do not
    make a set.
    """
    inside, _ = scan.list()
    named = named_as_splits(inside)
    if len(named) == 1 and not scan.list(next(iter(named)))[0]:
        (name,) = named
        if name.lower() in SPLIT_NAMES:
            return {"train": ""}
        if len(inside) > 1:
            others = [other for other in inside if other != name]
            raise DataError(
                f"{scan.root} has {name}, a split by its name, beside {few(others)}: add a second "
                "split, or give it another name if it is a class"
            )
    if not named:
        return {"train": ""}
    parts = by_part(scan, named, inside)
    for name in inside:
        if name not in named:
            scan.pass_over_folder(name, "beside the splits")
    return parts


def by_part(scan: Scan, named: dict[str, str], inside: Sequence[str]) -> dict[str, str]:
    """Return part → prefix of its folder, `train` first. named: the splits among `inside`."""
    parts = {part: name for name, part in named.items()}
    if len(parts) < len(named):
        raise DataError(f"{scan.root} has two folders for one split ({few(list(named))}): keep one")
    if "train" not in parts or (len(parts) == 1 and len(inside) > 1):
        missing = "train" if "train" not in parts else "val or test"
        raise DataError(f"{scan.root} has {few(inside)} but no {missing} folder: rename or add it")
    return {part: _inner(scan, parts[part], part) for part in PARTS if part in parts}


def split_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return part → the file that is named like it, `train` first.

    A file with exactly the name of a split counts before others. Raises DataError for two of one
    split.
    """
    stems = {name: Path(name).stem for name in names}
    exact = {name: SPLIT_NAMES.get(stem.lower()) for name, stem in stems.items()}
    named = {name: part for name, part in exact.items() if part}
    for name, stem in stems.items():
        part = part_of(stem)
        if part and part not in exact.values():
            named[name] = part
    if len(set(named.values())) < len(named):
        raise DataError(f"{folder} has two files for one split ({few(list(named))}): keep one")
    files = {part: name for name, part in named.items()}
    return {part: files[part] for part in PARTS if part in files}


def _inner(scan: Scan, name: str, part: str) -> str:
    """Return the prefix of a split, also where its folder holds it once more: train/train/."""
    prefix = f"{name}/"
    while True:
        folders, images = scan.list(prefix)
        if images or len(folders) != 1 or part_of(folders[0]) != part:
            return prefix
        prefix += f"{folders[0]}/"


def _read(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the part that a name says, None for none or several, and its other words."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name)).lower()
    parts, rest = set(), []
    for word in _WORD.findall(text):
        split = _split_in(word)
        if split is None:
            rest.append(word)
        else:
            parts.add(split)
    return (parts.pop() if len(parts) == 1 else None), tuple(rest)


def _split_in(word: str) -> str | None:
    """Return the part that one word says, also written together: "trainset", "imagestest"."""
    for spelling, part in SPLIT_NAMES.items():
        for rest in (word.removesuffix(spelling), word.removeprefix(spelling)):
            if rest == "" or (rest != word and len(rest) > 2 and rest in _EMPTY_WORDS):
                return part
    return None
