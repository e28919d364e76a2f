"""What the epochs of a Run say."""

import pytest

from trainables.engine.early_stopping import AllCollapsed, best_epoch, chosen_epoch, has_ended
from trainables.schemas.byol import ByolSchema
from trainables.schemas.classify import ClassifySchema
from trainables.training_config import TrainableConfig


def epochs(*entries: dict[str, float]) -> list[dict[str, float]]:
    return [{"epoch": number, **entry} for number, entry in enumerate(entries, start=1)]


def test_the_last_epoch_can_be_what_is_chosen():
    history = epochs({"val/loss": 1.0}, {"val/loss": 2.0})
    assert best_epoch(history, "epoch", "max") == 2
    assert best_epoch(history, "val/loss", "min") == 1


@pytest.mark.parametrize(("done", "ended"), [(0, False), (2, False), (3, True)])
def test_a_run_ends_with_its_epochs(done, ended):
    config = TrainableConfig(dataset="d", epochs=3)
    assert has_ended(epochs(*[{"val/loss": 1.0}] * done), config) is ended


def test_an_epoch_without_the_metric_or_that_has_collapsed_is_not_chosen():
    history = epochs(
        {"val/knn_accuracy": 0.2, "val/loss": 1.0},
        {"val/loss": 0.9},
        {"val/knn_accuracy": 0.3, "val/loss": 0.5, "val/projection_collapsed": 0.0},
        {"val/knn_accuracy": 0.4, "val/loss": 0.1, "val/projection_collapsed": 1.0},
        {"val/knn_accuracy": 0.4, "val/loss": 0.0, "val/embedding_collapsed": 1.0},
    )
    assert best_epoch(history, "val/knn_accuracy", "max") == 3
    assert best_epoch(history, "val/loss", "min") == 3
    assert best_epoch(history, "epoch", "max") == 3
    assert chosen_epoch(history, "epoch", "max") == 3
    assert best_epoch(history[3:], "val/loss", "min") == 5  # to keep a checkpoint meanwhile
    with pytest.raises(AllCollapsed, match="no epoch can be chosen.* in each of 2: lower lr"):
        chosen_epoch(history[3:], "val/loss", "min")
    with pytest.raises(ValueError, match="none of 1 epochs has val/knn_accuracy"):
        best_epoch(history[1:2], "val/knn_accuracy", "max")


@pytest.mark.parametrize(
    ("accuracies", "ended"),
    [
        ([0.2, None, None, None, None, None], False),  # none could show an improvement yet
        ([0.2, None, None, None, 0.1], True),
        ([0.2, None, None, None, 0.3, None, None], False),
        ([0.2, None, None, None, 0.3, None, None, None, None, 0.3], True),
        ([], False),
    ],
)
def test_patience_counts_up_to_the_last_epoch_with_the_metric(accuracies, ended):
    stop = {"metric": "val/knn_accuracy", "patience": 3}
    config = TrainableConfig.model_validate({"dataset": "d", "epochs": 99, "early_stopping": stop})
    entries = [{} if a is None else {"val/knn_accuracy": a} for a in accuracies]
    assert has_ended(epochs(*entries), config) is ended


def test_early_stopping_watches_what_selects_unless_it_names_a_metric():
    given = {"dataset": "d", "early_stopping": {"patience": 3}}
    watched = {
        name: kind.settled(kind.Config.model_validate({**given, **more}), True).early_stopping
        for name, kind, more in [
            ("classify", ClassifySchema, {}),
            ("knn", ByolSchema, {}),
            ("last", ByolSchema, {"select": "last"}),
            ("named", ByolSchema, {"early_stopping": {"metric": "train/loss"}}),
        ]
    }
    assert {name: stop.metric for name, stop in watched.items()} == {
        "classify": "val/accuracy",
        "knn": "val/knn_accuracy",
        "last": "val/loss",
        "named": "train/loss",
    }
    with pytest.raises(ValueError, match="settle the configuration first"):
        has_ended(epochs({"val/loss": 1.0}), ClassifySchema.Config.model_validate(given))
