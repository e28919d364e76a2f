"""Tests of kept predictions as they are read: figures, tests between two, what is refused."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.reporting.comparison import tables
from orchestrator.reporting.exports import as_csv, as_json
from orchestrator.reporting.predictions import Predictions, image_test, read_predictions
from orchestrator.reporting.tables import as_text
from orchestrator.statistics.images import ImageTest
from orchestrator.statistics.intervals import Interval
from tests.orchestrator.reporting.test_comparison import record, spec
from trainables.metrics import OF_PREDICTIONS, in_percent, metric_of

NAMES = ["Art/Bed/1.jpg", "Art/Cup/1.jpg", "Clipart/Bed/1.jpg", "Clipart/Cup/1.jpg"]


def classified(predicted, names=NAMES, fingerprint="f"):
    """Predictions of images of the classes Bed, Cup, Bed, Cup."""
    predicted, labels = np.array(predicted), np.arange(len(predicted)) % 2
    probabilities = np.tile([0.8, 0.2], (len(predicted), 1))
    arrays = {
        "predicted": predicted, "labels": labels, "rows": np.arange(len(predicted)) + 10,
        "top": np.stack([predicted, 1 - predicted], 1), "probabilities": probabilities,
        "names": np.array([name.encode() for name in names], dtype=bytes),
        "classes": np.array(["Bed", "Cup/lid"]), "fingerprint": np.array(fingerprint),
    }  # fmt: skip
    return Predictions(arrays)


def segmented(hits, truth, guessed):
    arrays = {"hits": hits, "truth": truth, "guessed": guessed}
    counts = {name: np.array(value) for name, value in arrays.items()}
    rest = {"rows": np.arange(len(hits)), "fingerprint": np.array("f")}
    return Predictions({**counts, **rest, "names": np.array([], dtype=bytes)})


def test_figures_by_hand():
    """Right: Bed in Art, both in Clipart. Confusion [[2, 0], [1, 1]]: F1 0.8 and 2/3."""
    figures = classified([0, 0, 0, 1]).figures()
    assert figures == {
        "test/top5_accuracy": 1.0,
        "test/macro_f1": pytest.approx((0.8 + 2 / 3) / 2),
        "test/balanced_accuracy": 0.75,
        "test/calibration_error": pytest.approx(0.05),
        "test/class_accuracy/Bed": 1.0,
        "test/class_accuracy/Cup-lid": 0.5,
        "test/domain_accuracy/Art": 0.5,
        "test/domain_accuracy/Clipart": 1.0,
    }
    assert all(in_percent(name) for name in figures)
    assert metric_of("test/calibration_error").mode == "min"


@pytest.mark.parametrize("names", [[], ["a/1", "b/1", "a/2", "b/2"], ["x/a/1"] * 4])
def test_only_domain_folders_are_domains(names):
    figures = classified([0, 0, 0, 1], names).figures()
    assert not any("domain" in name for name in figures)


def test_two_classifiers_are_paired_image_by_image():
    test = image_test("test/accuracy", {3: (classified([0, 1, 0, 1]), classified([0, 1, 1, 0]))})
    assert (test.images, test.seeds, test.mean) == (4, (3,), 0.5)
    assert test.mcnemar == (0.5,) == (test.p,)


@pytest.mark.parametrize("other", [
    classified([0, 1, 1, 0], fingerprint="g"),
    classified([0, 1, 1]),
    replace(classified([0, 1, 1, 0]), arrays={**classified([0, 1, 1, 0]).arrays,
                                              "rows": np.array([10, 11, 13, 12])}),
    segmented([[1, 1]] * 4, [[1, 1]] * 4, [[1, 1]] * 4),
])  # fmt: skip
def test_other_images_or_another_order_are_never_paired(other):
    with pytest.raises(ValueError, match="not tested on the same images"):
        image_test("test/accuracy", {0: (classified([0, 1, 0, 1]), other)})


def test_a_metric_without_a_test_over_images_has_none():
    pair = (classified([0, 1, 0, 1]), classified([0, 1, 1, 0]))
    assert image_test("test/loss", {0: pair}) is None
    assert image_test("test/miou", {0: pair}) is None


def test_mean_iou_is_paired_over_images():
    """Class 1 is in the second image only, where it is absent from what is drawn it does not count.
    First: IoU 8/10 and 2/4; second: 5/10 and 1/4."""
    first = segmented([[4, 0], [4, 2]], [[5, 0], [4, 3]], [[5, 0], [5, 3]])
    second = segmented([[3, 0], [2, 1]], [[5, 0], [4, 3]], [[4, 0], [2, 2]])
    test = image_test("test/miou", {0: (first, second)})
    assert test.mean == pytest.approx((8 / 11 + 2 / 4 - 5 / 10 - 1 / 4) / 2)
    assert test.interval.low <= test.mean <= test.interval.high
    pixels = image_test("test/accuracy", {0: (first, second)})
    assert pixels.mean == pytest.approx(10 / 12 - 6 / 12)


def test_a_damaged_file_is_named(tmp_path: Path):
    path = tmp_path / "test.npz"
    for content in (b"", b"PK\x03\x04 no archive", b"mine"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="test.npz is damaged"):
            read_predictions(path)
    np.savez(path, other=np.arange(3))
    with pytest.raises(ValueError, match="holds no predictions"):
        read_predictions(path)
    np.savez(path, **classified([0, 1, 0, 1]).arrays)
    assert read_predictions(path).same_test(classified([1, 1, 1, 1]))


def test_both_kinds_of_test_stand_side_by_side_and_say_what_they_are():
    facts = {"test_images": "241"}
    values = {"A": [0.50, 0.52], "B": [0.45, 0.46]}
    runs = [
        record(label, seed, value, facts=facts)
        for label, of_seed in values.items()
        for seed, value in enumerate(of_seed)
    ]
    (made,) = tables(runs, replace(spec(), differences=(("A", "B"),)))
    test = ImageTest(241, (0, 1), 0.055, Interval(0.01, 0.1), 0.02, (0.1, 0.04))
    told = replace(made.differences[0], images=test, unkept=("B seed 1",))
    text = as_text([replace(made, differences=(told,))])
    assert "classify on digits: these trained models, compared over test images" in text
    assert "A - B    +5.50  +1.00 to +10.00  0.02     241      2" in text
    joined = " ".join(text.split())
    assert "A - B, by McNemar's exact test of each seed: seed 0: p 0.1, seed 1: p 0.04." in joined
    assert "Not tested over images: B seed 1. No predictions are kept of Runs that" in joined
    # Wilson at 0.455 and 241: 0.3935 to 0.5181; at 0.51: 0.4471 to 0.5725
    assert (
        "The test set has 241 images: others of as many could change each accuracy by up to"
        in joined
    )
    assert "6.3 points (95 %, binomial)" in joined
    assert max(map(len, text.splitlines())) <= 80
    (gain,) = as_json([replace(made, differences=(told,))])["gains"]
    assert gain["images"] == {
        "n": 241, "mean": 0.055, "low": 0.01, "high": 0.1, "p": 0.02, "seeds": [0, 1],
        "mcnemar": {"0": 0.1, "1": 0.04},
    }  # fmt: skip


def test_one_line_of_a_study_chooses_what_the_table_shows():
    names = [f"test/{name}" for name in OF_PREDICTIONS[:4]]
    metrics = {"test/accuracy": 0.5, **dict.fromkeys(names, 0.25), "test/domain_accuracy/Art": 0.75}
    runs = [record("A", seed, metrics=metrics) for seed in (0, 1)] + [record("B", 0, 0.5)]
    asked = replace(spec(), figures=("macro_f1", "domain_accuracy", "class_accuracy"))
    (made,) = tables(runs, asked)
    assert as_text([made]).splitlines()[-5:] == [
        "figure               label   mean  95 % interval  n",
        "macro_f1                 A  25.00              -  2",
        "macro_f1                 B      -              -  0",
        "domain_accuracy/Art      A  75.00              -  2",
        "domain_accuracy/Art      B      -              -  0",
    ]
    assert [row["metric"] for row in as_json([made])["figures"]] == [
        "test/macro_f1", "test/macro_f1", "test/domain_accuracy/Art", "test/domain_accuracy/Art",
    ]  # fmt: skip
    (old,) = tables([record("B", 0, 0.5)], asked)
    assert as_text([old]).endswith("an earlier version has trained them.")
    lines = list(csv.DictReader(io.StringIO(as_csv([made]))))
    kinds = ["row", "row", "figure", "figure", "figure", "figure"]
    assert [line["kind"] for line in lines] == kinds


def test_without_any_predictions_that_is_said_once():
    runs = [record(label, seed, 0.5 + seed / 10) for label in "AB" for seed in (0, 1)]
    (made,) = tables(runs, replace(spec(), differences=(("A", "B"),)))
    told = replace(made.differences[0], unkept=("A seed 0", "B seed 0"))
    text = as_text([replace(made, differences=(told,))])
    assert "Not tested over images: A seed 0, B seed 0." in text
    assert "binomial" not in text
