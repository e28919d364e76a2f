"""Keeps what a model predicts of each test image, while its test is evaluated.

The test is not evaluated twice: a hook on the model sees what `Trainable.evaluate` computes.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.loading.batches import evaluation_shares
from trainables.loading.image_table import ImageTable
from trainables.monitoring.iou import confusion
from trainables.numerics.distributed import World
from trainables.trainable import Trainable
from trainables.transforms.windows import joined, joined_masks

_BEST = 5  # classes of which the probability is kept
Arrays = dict[str, np.ndarray[Any, Any]]


class PredictionsDiffer(Exception):
    """Raised where what was seen of a model is not what its test figures come from; one line."""


class PredictionWatch:
    """Watches a model while `engine.evaluation` goes through the test images on this rank.

    Of a classifier `arrays` returns `predicted` (N,) int32, the class; `top` (N, k) int32 and
    `probabilities` (N, k) float32, the k = 5 likeliest classes (fewer where there are fewer) with
    their probabilities in [0, 1]; `labels` (N,) int32. Of a segmentation it returns pixel counts
    for each class, (N, K) int64: `hits` (truth and prediction agree), `truth` and `guessed`.
    Ignored pixels do not count. Both have `rows` (N,) int64, the numbers of the images in the data
    set, in the order of the test set; their `names` (N,) in UTF-8, none where the cache has none;
    `classes` (K,) text; and `fingerprint` of the data set, which covers names, contents, labels and
    parts of all images: two files with equal fingerprint and rows are of the same test.
    """

    def __init__(self, trainable: Trainable, table: ImageTable, world: World) -> None:
        self._table, self._world, self._kind = table, world, trainable.PREDICTS
        at_once = trainable.evaluated_at_once(table.size) * world.size
        self._shares = evaluation_shares(table, "test", at_once, world)
        self._rows = np.concatenate([np.empty(0, np.int64), *self._shares]).astype(np.int64)
        self._seen: list[Arrays] = []
        self._windows: list[Tensor] = []  # logits of the image that is going on
        self._count = 0
        self._handle = trainable.model.register_forward_hook(self._see)

    def stop(self) -> None:
        """See nothing more."""
        self._handle.remove()

    def arrays(self, sums: Mapping[str, Tensor]) -> Arrays:
        """Return what all ranks have seen; every rank takes part. sums: of the test, over all
        ranks. Raises PredictionsDiffer where they do not follow from what was seen."""
        firsts = [rows[:1] for rows in self._shares] if self._table.windows is not None else []
        rows = np.concatenate([np.empty(0, np.int64), *firsts]) if firsts else self._rows
        seen = {"rows": rows, **(_joined(self._seen) if self._seen else {})}
        parts = [part for part in self._world.all_gather(seen) if len(part["rows"])]
        lengths = [len(array) == len(part["rows"]) for part in parts for array in part.values()]
        if not all(lengths) or not all(len(part) > 1 for part in parts):
            raise PredictionsDiffer("the model was not called once for each test image")
        arrays, table = _joined(parts), self._table
        images = table.of_images(table.parts["test"])
        test = np.array([rows[0] for rows in images], dtype=np.int64)
        order = np.argsort(arrays["rows"], kind="stable")
        places = np.argsort(np.argsort(test, kind="stable"), kind="stable")
        arrays = {name: array[order][places] for name, array in arrays.items()}
        if not np.array_equal(arrays["rows"], test):
            raise PredictionsDiffer("the model was not called once for each test image")
        if self._kind == "classes":
            arrays["labels"] = table.labels[test].astype(np.int32)
        _check(arrays, sums)
        names = [os.fsencode(table.names[row]) for row in test] if table.names else []
        return {
            **arrays,
            "names": np.array(names, dtype=bytes),
            "classes": np.array(table.classes, dtype=str),
            "fingerprint": np.array(table.fingerprint),
        }

    def _see(self, module: nn.Module, inputs: object, output: Any) -> None:
        """Note the output of one batch: logits (B, K), or a mapping with `out` (B, K, H, W)."""
        logits = output["out"] if self._kind == "masks" else output
        rows = self._rows[self._count : self._count + len(logits)]
        self._count += len(logits)
        if self._table.windows is not None:
            self._see_windows(logits)
        elif self._kind == "classes":
            self._seen.append(_classes(logits.float()))
        elif self._table.masks is not None and len(rows) == len(logits):
            truth = torch.from_numpy(self._table.masks[rows]).to(logits.device)
            self._seen.append(_pixels(logits.argmax(1), truth, logits.shape[1]))

    def _see_windows(self, logits: Tensor) -> None:
        """Note some windows of an image, (n, K, S, S), and count once all of it were seen."""
        table, masks = self._table, self._table.masks
        self._windows.append(logits)
        rows = self._shares[len(self._seen)] if len(self._seen) < len(self._shares) else ()
        places = table.places(np.asarray(rows, dtype=np.int64))
        if masks is None or not places or sum(map(len, self._windows)) != len(places):
            return
        truth = joined_masks(torch.from_numpy(masks[rows]).to(logits.device), places)
        whole, self._windows = joined(self._windows, places), []
        self._seen.append(_pixels(whole.argmax(1), truth, whole.shape[1]))


def _classes(logits: Tensor) -> Arrays:
    """logits: (B, K) float32. The class is the one that `classification_sums` counts, also where
    two are equally likely."""
    top = logits.softmax(1).topk(min(_BEST, logits.shape[1]))
    return {
        "predicted": logits.argmax(1).int().cpu().numpy(),
        "top": top.indices.int().cpu().numpy(),
        "probabilities": top.values.cpu().numpy(),
    }


def _pixels(predicted: Tensor, truth: Tensor, classes: int) -> Arrays:
    """predicted, truth: (B, H, W) class ids."""
    pairs = zip(predicted, truth, strict=True)
    matrices = [confusion(guess, true, classes) for guess, true in pairs]
    matrix = torch.stack(matrices) if matrices else truth.new_zeros(0, classes, classes).long()
    counts = {
        "hits": matrix.diagonal(dim1=1, dim2=2), "truth": matrix.sum(2), "guessed": matrix.sum(1)
    }  # fmt: skip
    return {name: value.cpu().numpy() for name, value in counts.items()}


def image_confusion(arrays: Arrays) -> np.ndarray[Any, Any]:
    """Count test images of a classifier, (K, K) int64: rows are the truth, columns the prediction.
    arrays: as `PredictionWatch.arrays` returns them."""
    classes = len(arrays["classes"])
    pairs = arrays["labels"].astype(np.int64) * classes + arrays["predicted"]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check(arrays: Arrays, sums: Mapping[str, Tensor]) -> None:
    """Raise PredictionsDiffer unless the test's own sums follow from the arrays, exactly."""
    if "confusion" in sums and "hits" in arrays:
        matrix = sums["confusion"].cpu().numpy()
        same = np.array_equal(arrays["hits"].sum(0), matrix.diagonal())
        same &= np.array_equal(arrays["guessed"].sum(0), matrix.sum(0))
    elif "correct" in sums and "predicted" in arrays:
        same = float(sums["correct"]) == (arrays["predicted"] == arrays["labels"]).sum()
    else:
        same = False
    if not same:
        raise PredictionsDiffer("the test figures do not follow from what the model returned")
