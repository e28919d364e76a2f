"""What is said of collapsed features, and of those that are worse than before training."""

import pytest

from trainables.monitoring.feature_warnings import below_initial_warning, collapse_warning

CALM = {"val/embedding_std": 0.04, "val/effective_rank": 40.0, "val/embedding_collapsed": 0.0}
FLAT = {"val/embedding_std": 1e-6, "val/effective_rank": 1.0, "val/embedding_collapsed": 1.0}
DEAD = {"val/projection_std": 2e-5, "val/projection_rank": 1.1, "val/projection_collapsed": 1.0}


def epochs(*entries: dict[str, float]) -> list[dict[str, float]]:
    return [{"epoch": number, **entry} for number, entry in enumerate(entries, start=1)]


@pytest.mark.parametrize(
    ("probes", "since"),
    [
        ([], None),
        ([CALM, {}, CALM], None),
        ([CALM, {}, FLAT, FLAT], 3),
        ([FLAT, CALM], None),  # it has recovered
        ([FLAT, {}, FLAT, {}], 1),
    ],
)
def test_a_collapse_is_told_since_when_it_lasts(probes, since):
    said = collapse_warning(epochs(*probes))
    assert (since is None) == (said == "")
    assert since is None or f"the embedding has collapsed by epoch {since} " in said


def test_a_dead_projection_over_a_lively_encoder_is_named():
    said = collapse_warning(epochs(CALM, {**CALM, **DEAD}))
    assert said == (
        "the projection has collapsed by epoch 2 (standard deviation 2e-05, effective rank 1.1)"
    )


def test_features_below_those_before_training_are_told():
    history = epochs(
        {"initial/knn_accuracy": 0.242, "val/knn_accuracy": 0.18},
        {},
        {"val/knn_accuracy": 0.25},
        {},
    )
    said = "kNN 18.0 % (epoch 1) is below that of the initial weights, 24.2 %"
    assert below_initial_warning(history, 1) == below_initial_warning(history, 2) == said
    assert below_initial_warning(history, 3) == below_initial_warning(history, 4) == ""
    assert below_initial_warning([], 1) == below_initial_warning(epochs({}), 1) == ""
