"""Finds images that a stage trains on and by which a later stage, on other data, is judged."""

from collections.abc import Mapping
from dataclasses import dataclass

from trainables.contents.copies import Pairs, first_names, shared_pairs
from trainables.data.contract import Source

_BY = ("val", "test")  # parts that judge


@dataclass(frozen=True)
class Leak:
    """Says which images of one data set's part another data set trains on.

    pairs: names, that in `part` first; total: images of the part.
    """

    part: str
    pairs: Pairs
    total: int


def leaks(
    source: Source, contents: tuple[str, ...], trained: Source, hashes: tuple[str, ...]
) -> list[Leak]:
    """Return the leaks from training on one data set into validation and test of another.

    source, contents: the data set that judges, and the hash of each of its images, "" for one that
    is no copy of anything; trained, hashes: the same of the other one.
    """
    known = first_names(trained, hashes, "train")
    found = []
    for part in _BY:
        if pairs := shared_pairs(first_names(source, contents, part), known):
            found.append(Leak(part, pairs, len(source.parts[part])))
    return found


def judging(source: Source, contents: tuple[str, ...]) -> Mapping[str, str]:
    """Return hash → name of the images by which a data set judges."""
    return {c: n for part in _BY for c, n in first_names(source, contents, part).items()}
