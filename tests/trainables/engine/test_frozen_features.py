"""A head on kept features learns what it learns on the images, and kept features are verified."""

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import ALONE, damage
from trainables.data.datasets import DatasetConfig
from trainables.engine.checkpoints import InMemory, Result
from trainables.engine.evaluation import named_figures, sums_over
from trainables.engine.frozen_features import FeatureTable, with_features
from trainables.engine.loop import fit
from trainables.loading.decoded_cache import load_table
from trainables.loading.image_table import ImageTable
from trainables.monitoring.probe import features
from trainables.tasks.classify import Classify
from trainables.transforms.geometry import normalize

HEAD = {
    "dataset": "digits", "backbone": "resnet10_slim", "small_input": True, "epochs": 3,
    "batch_size": 16, "train": "head", "augment": "none", "precision": "float32",
}  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ImageTable:
    return load_table(DatasetConfig(type="digits", limit=120), tmp_path_factory.mktemp("cache"))


def trained(table: ImageTable, **settings: Any) -> tuple[Result, InMemory]:
    checkpoints = InMemory()
    config = Classify.Config.model_validate(HEAD | settings)
    return fit(Classify, config, table, seed=2, checkpoints=checkpoints), checkpoints


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_figures_are_those_of_training_on_the_images(table: ImageTable, head: str) -> None:
    """Up to rounding: features of a larger batch differ in their last digits."""
    slow, on_images = trained(table, head=head)
    fast, on_features = trained(table, head=head, keep_features=True)
    for entry, wanted in zip(fast.history, slow.history, strict=True):
        for name in ("train/loss", "val/loss", "val/accuracy"):
            assert entry[name] == pytest.approx(wanted[name], rel=1e-4), name
    assert fast.best_epoch == slow.best_epoch
    assert fast.test == pytest.approx(slow.test, rel=1e-4)
    weights, wanted_weights = on_features.states[3].weights, on_images.states[3].weights
    for name, value in wanted_weights.items():
        torch.testing.assert_close(weights[name], value, atol=1e-4, rtol=1e-3)
        assert "head" in name or torch.equal(weights[name], value)


def test_a_sweep_is_one_run_for_each_rate_and_validation_chooses(table: ImageTable) -> None:
    rates = [0.003, 0.3, 0.03]
    alone = {rate: trained(table, lr=rate)[0] for rate in rates}
    swept, checkpoints = trained(table, keep_features=True, lr_sweep=rates)
    for epoch, entry in enumerate(swept.history):
        found = {rate: result.history[epoch] for rate, result in alone.items()}
        best = max(found, key=lambda r: (found[r]["val/accuracy"], -found[r]["val/loss"]))
        assert entry["val/head_lr"] == best
        assert entry["val/accuracy"] == found[best]["val/accuracy"]
        assert entry["val/loss"] == pytest.approx(found[best]["val/loss"], rel=1e-4)
        mean = np.mean([figures["train/loss"] for figures in found.values()])
        assert entry["train/loss"] == pytest.approx(mean, rel=1e-4)
    winner = swept.history[swept.best_epoch - 1]["val/head_lr"]
    assert swept.test["test/head_lr"] == winner
    # as a model that is loaded and asked about images
    config = Classify.Config.model_validate(HEAD | {"keep_features": True, "lr_sweep": rates})
    loaded = Classify(config, table.info)
    loaded.model.load_state_dict(dict(checkpoints.states[swept.best_epoch].weights))
    sums = sums_over("test", loaded, table, ALONE, nullcontext, 0)
    assert named_figures("test", loaded, sums) == pytest.approx(swept.test, rel=1e-4)
    with torch.inference_mode():
        images = torch.from_numpy(table.images[table.parts["test"]])
        right = (loaded.model(normalize(images)).argmax(1).numpy()
                 == table.labels[table.parts["test"]])  # fmt: skip
    assert right.mean() == pytest.approx(swept.test["test/accuracy"])
    assert checkpoints.arrays["predictions/test.npz"]["predicted"].shape == right.shape


def features_of(table: ImageTable, folder: Path, seed: int = 0) -> FeatureTable:
    torch.manual_seed(seed)
    trainable = Classify(Classify.Config.model_validate(HEAD), table.info)

    def compute(rows: np.ndarray) -> torch.Tensor:
        return features(trainable, table, rows, ALONE, nullcontext)

    return with_features(trainable, table, ALONE, compute, folder, "float32")


def test_kept_features_are_read_again_and_a_damaged_file_is_not(
    table: ImageTable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = features_of(table, tmp_path)
    assert first.images.shape == (len(table.labels), 128) and first.images.dtype == np.float32
    assert first.info == table.info and first.fingerprint == table.fingerprint
    (file,) = tmp_path.glob("*.npy")
    assert not caplog.records
    assert np.array_equal(features_of(table, tmp_path).images, first.images)
    assert caplog.records.pop().message.endswith(f"features are read from {file}")
    for how in ("one bit", "cut", "zeroed", "empty"):
        damage(file, how)
        assert np.array_equal(features_of(table, tmp_path).images, first.images)
        assert "is damaged: the features are computed again" in caplog.records[-1].message
    file.with_suffix(".json").unlink()
    assert np.array_equal(features_of(table, tmp_path).images, first.images)
    other = features_of(table, tmp_path, seed=1)
    assert not np.array_equal(other.images, first.images)
    assert len(list(tmp_path.glob("*.npy"))) == 2  # another encoder has a file of its own
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}
