"""Tests of figures of a classification: by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from orchestrator.statistics.scores import (
    balanced_accuracy,
    calibration_error,
    class_accuracy,
    confusion,
    macro_f1,
    top_accuracy,
)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore:.*not in y_true")
def test_figures_are_those_of_scikit_learn(seed: int) -> None:
    rng, classes = np.random.default_rng(seed), 7
    labels = rng.integers(0, classes - 1, 300)  # the last class has no image, but is predicted
    scores = rng.random((300, classes)) + 0.5 * np.eye(classes)[labels]
    predicted = scores.argmax(1)
    matrix = confusion(labels, predicted, classes)
    assert np.array_equal(
        matrix, metrics.confusion_matrix(labels, predicted, labels=range(classes))
    )
    assert macro_f1(matrix) == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    expected = metrics.balanced_accuracy_score(labels, predicted)
    assert balanced_accuracy(matrix) == pytest.approx(expected)
    recall = metrics.recall_score(labels, predicted, average=None, labels=range(classes - 1))
    assert class_accuracy(matrix)[:-1] == pytest.approx(recall)
    assert np.isnan(class_accuracy(matrix)[-1])
    top = np.argsort(-scores, axis=1)[:, :5]
    expected = metrics.top_k_accuracy_score(labels, scores, k=5, labels=range(classes))
    assert top_accuracy(labels, top) == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    """Bins of width 1/15: 0.50 and 0.51 share one, (0.467, 0.533]: gap |1.01 - 1| / 4. 0.9 and 0.92
    share (0.867, 0.933]: gap |1.82 - 1| / 4. Together 0.0025 + 0.205."""
    confidence = np.array([0.50, 0.51, 0.9, 0.92])
    right = np.array([True, False, True, False])
    assert calibration_error(confidence, right) == pytest.approx(0.2075)
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0.0
    assert calibration_error(np.array([1.0, 1.0]), np.array([False, True])) == 0.5


def test_calibration_error_is_that_of_scikit_learns_curve() -> None:
    """scikit-learn's curve has the mean confidence and accuracy of the same 15 bins."""
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 4000)
    right = rng.random(4000) < confidence**2
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    counts = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    expected = (np.abs(accuracy - mean) * counts[counts > 0]).sum() / 4000
    assert calibration_error(confidence, right) == pytest.approx(expected)


def test_a_well_calibrated_model_has_a_small_error() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.2, 1, 20_000)
    assert calibration_error(confidence, rng.random(20_000) < confidence) < 0.02
