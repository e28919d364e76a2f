"""Reads what Runs predicted of each test image: figures of one Run, tests between two."""

import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from orchestrator.statistics import scores
from orchestrator.statistics.images import ImageTest, bootstrap_test, share_test

Array = np.ndarray[Any, Any]
_MOST_CLASSES = 200  # whose accuracy is a metric of its own


@dataclass(frozen=True)
class Predictions:
    """Holds what a Run predicted. arrays: as `trainables.monitoring.predictions` keeps them."""

    arrays: Mapping[str, Array]

    @property
    def images(self) -> int:
        """Return the number of test images."""
        return len(self.arrays["rows"])

    @property
    def is_classification(self) -> bool:
        return "predicted" in self.arrays

    @property
    def right(self) -> Array:
        """Return whether each image is classified right, (N,) bool."""
        right: Array = self.arrays["predicted"] == self.arrays["labels"]
        return right

    def same_test(self, other: "Predictions") -> bool:
        """Return whether both are of the same images in the same order: equal fingerprint, which
        covers names, contents, labels and parts of the data set, and equal numbers."""
        wanted = {"fingerprint", "rows", "labels"}
        names = wanted & self.arrays.keys()
        return names == wanted & other.arrays.keys() and all(
            np.array_equal(self.arrays[name], other.arrays[name]) for name in names
        )

    def figures(self) -> dict[str, float]:
        """Return the figures of a classification beside those that it reports itself: full name →
        value. Empty for a segmentation."""
        if not self.is_classification:
            return {}
        labels, right = self.arrays["labels"], self.right
        matrix = self.confusion()
        figures = {
            "test/top5_accuracy": scores.top_accuracy(labels, self.arrays["top"]),
            "test/macro_f1": scores.macro_f1(matrix),
            "test/balanced_accuracy": scores.balanced_accuracy(matrix),
            "test/calibration_error": scores.calibration_error(
                self.arrays["probabilities"][:, 0], right
            ),
        }
        if len(matrix) <= _MOST_CLASSES:
            shares = zip(self.arrays["classes"], scores.class_accuracy(matrix), strict=True)
            figures |= {f"test/class_accuracy/{_plain(n)}": float(v) for n, v in shares if v == v}
        domains = self.domains()
        for domain in sorted(set(domains)):
            figures[f"test/domain_accuracy/{_plain(domain)}"] = float(
                right[domains == domain].mean()
            )
        return figures

    def confusion(self) -> Array:
        """Return the images of each class (rows) by prediction (columns), (K, K) int64."""
        classes = len(self.arrays["classes"])
        matrix: Array = scores.confusion(self.arrays["labels"], self.arrays["predicted"], classes)
        return matrix

    def domains(self) -> Array:
        """Return the domain of each image, (N,) text: the first folder of its name, as in `Art/Bed/
        00001.jpg`. Empty where not every name has two folders, or all have the same first one."""
        paths = [PurePosixPath(name.decode(errors="replace")) for name in self.arrays["names"]]
        if not paths or any(len(path.parts) != 3 for path in paths):
            return np.array([], dtype=str)
        firsts = np.array([path.parts[0] for path in paths])
        return firsts if len(set(firsts)) > 1 else np.array([], dtype=str)


def _plain(name: str) -> str:
    """Return a name with letters that MLflow takes in the name of a metric."""
    return re.sub(r"[^A-Za-z0-9_. -]", "-", name)


def read_predictions(path: Path) -> Predictions:
    """Read a file of kept predictions. Raises ValueError where it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            read = {name: arrays[name] for name in arrays}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged") from error
    if "rows" not in read:
        raise ValueError(f"{path.name} holds no predictions")
    return Predictions(read)


def image_test(
    metric: str,
    pairs: Mapping[int, tuple[Predictions, Predictions]],
    folds: Mapping[int, int | None] | None = None,
) -> ImageTest | None:
    """Test two configurations over the test images. pairs: seed → both Runs' predictions; folds:
    seed → the fold that its Runs test, where the data set has folds.

    None for a metric that has no such test. Raises ValueError where the Runs of a pair, or two
    pairs of one fold, were not tested on the same images.
    """
    of_fold: dict[int | None, list[Predictions]] = {}
    for seed, pair in pairs.items():
        of_fold.setdefault((folds or {}).get(seed), []).extend(pair)
    for same in of_fold.values():
        if not all(same[0].same_test(other) for other in same[1:]):
            raise ValueError("their Runs were not tested on the same images")
    all_of = [one for pair in pairs.values() for one in pair]
    seeds = tuple(sorted(pairs, key=lambda seed: list(of_fold).index((folds or {}).get(seed))))
    pairs = {seed: pairs[seed] for seed in seeds}  # those of a fold follow each other
    if metric == "test/accuracy" and all(one.is_classification for one in all_of):
        answers = [(one.right, other.right) for one, other in pairs.values()]
        return share_test(answers, seeds, [(folds or {}).get(seed) for seed in seeds])
    if len(of_fold) > 1:
        raise ValueError("each fold has other images, and the figure is one of a whole test")
    figure = _PIXEL_FIGURES.get(metric)
    if figure is None or any(one.is_classification for one in all_of):
        return None
    figures = [(figure(one), figure(other)) for one, other in pairs.values()]
    return bootstrap_test(figures, all_of[0].images, seeds)


def _mean_iou(predictions: Predictions) -> Callable[[Array], Array]:
    """Return the mean IoU over the classes that the drawn images show; weights (R, N) → (R,)."""
    arrays = predictions.arrays  # products of float64 are exact here, and faster than of int64
    hits, truth, guessed = (arrays[name].astype(float) for name in ("hits", "truth", "guessed"))

    def figure(weights: Array) -> Array:
        hit, true = weights @ hits, weights @ truth  # (R, K)
        union = true + weights @ guessed - hit
        iou = np.where(true > 0, hit / np.maximum(union, 1), 0.0)
        mean: Array = iou.sum(1) / np.maximum((true > 0).sum(1), 1)
        return mean

    return figure


def _pixel_accuracy(predictions: Predictions) -> Callable[[Array], Array]:
    hits, truth = (predictions.arrays[name].sum(1).astype(float) for name in ("hits", "truth"))

    def figure(weights: Array) -> Array:
        share: Array = (weights @ hits) / np.maximum(weights @ truth, 1)
        return share

    return figure


_PIXEL_FIGURES = {"test/miou": _mean_iou, "test/accuracy": _pixel_accuracy}
TESTED = frozenset(_PIXEL_FIGURES)  # metrics with a test over images
