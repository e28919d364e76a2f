"""What the epochs of a Run say."""

import pytest

from trainables.engine.early_stopping import best_epoch, has_ended
from trainables.monitoring.collapse import collapse_warning
from trainables.training_config import TrainableConfig

CALM = {"val/embedding_std": 0.04, "val/effective_rank": 40.0}
FLAT = {"val/embedding_std": 1e-6, "val/effective_rank": 1.0}


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
    said = collapse_warning(epochs(*probes), width=512)
    assert (since is None) == (said == "")
    assert since is None or f"collapsed by epoch {since} " in said
