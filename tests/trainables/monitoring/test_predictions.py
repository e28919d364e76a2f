"""Tests of kept predictions: they are those that the test figures come from, image by image."""

import dataclasses
import logging
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from trainables.data.datasets import DatasetConfig
from trainables.engine.checkpoints import InMemory
from trainables.engine.evaluation import sums_over
from trainables.engine.loop import fit
from trainables.loading.decoded_cache import load_table
from trainables.loading.image_table import open_table
from trainables.monitoring.predictions import PredictionsDiffer, PredictionWatch
from trainables.numerics.distributed import ALONE, World
from trainables.record_files import PREDICTIONS
from trainables.tasks.classify import Classify
from trainables.tasks.rotation import Rotation
from trainables.tasks.segment import Segment
from trainables.trainable import Batch
from trainables.transforms.geometry import normalize


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    config = DatasetConfig(type="digits", limit={"train": 128, "val": 40, "test": 90})
    return load_table(config, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def trained(digits):
    """A classifier's result and what it kept."""
    kept = InMemory()
    return fit(Classify, config(), digits, checkpoints=kept), kept


def config():
    return Classify.Config(dataset="d", backbone="resnet10_slim", small_input=True, epochs=2)


def test_test_accuracy_follows_from_the_kept_classes(digits, trained):
    result, kept = trained
    arrays = kept.arrays[PREDICTIONS]
    hits = arrays["predicted"] == digits.labels[digits.parts["test"]]
    assert np.mean(hits) == result.test["test/accuracy"]
    assert np.array_equal(arrays["rows"], digits.parts["test"])
    assert np.array_equal(arrays["labels"], digits.labels[digits.parts["test"]])
    assert len(arrays["names"]) == len(hits) == 90
    assert arrays["names"][0].decode() == digits.names[digits.parts["test"][0]]
    assert str(arrays["fingerprint"]) == digits.fingerprint


def test_probabilities_are_those_of_the_chosen_epoch_and_fall(digits, trained):
    result, kept = trained
    arrays = kept.arrays[PREDICTIONS]
    assert arrays["probabilities"].shape == arrays["top"].shape == (90, 5)
    assert (np.diff(arrays["probabilities"], axis=1) <= 0).all()
    assert (arrays["top"][:, 0] == arrays["predicted"]).mean() > 0.95  # but for ties
    model = Classify(config(), digits.info)
    model.model.load_state_dict(kept.states[result.best_epoch].weights)
    model.set_training(False)
    images = torch.from_numpy(np.array(digits.images[digits.parts["test"]]))
    with torch.inference_mode():
        logits = model.model(normalize(images))
    expected = logits.softmax(1).topk(5).values.numpy()
    assert np.allclose(arrays["probabilities"], expected, atol=1e-5)


def test_nothing_of_the_training_changes(digits, trained, monkeypatch):
    monkeypatch.setattr(Classify, "PREDICTS", None)
    kept = InMemory()
    result = fit(Classify, config(), digits, checkpoints=kept)
    assert PREDICTIONS not in kept.arrays
    assert result.test == trained[0].test
    weights = kept.states[2].weights
    assert all(torch.equal(v, weights[k]) for k, v in trained[1].states[2].weights.items())


def test_mean_iou_follows_from_the_pixel_counts_of_each_image(tmp_path):
    data = DatasetConfig(type="digit_scenes", limit={"train": 2, "val": 1, "test": 3})
    table, kept = load_table(data, tmp_path), InMemory()
    made = Segment.Config(
        dataset="d", network="fcn32s", backbone="vgg16", hidden=8, epochs=1, batch_size=2
    )
    result = fit(Segment, made, table, checkpoints=kept)
    arrays = kept.arrays[PREDICTIONS]
    assert arrays["hits"].shape == (3, len(table.classes))
    hits, truth, guessed = (arrays[name].sum(0) for name in ("hits", "truth", "guessed"))
    with np.errstate(invalid="ignore"):
        iou = np.where(truth > 0, hits / (truth + guessed - hits), np.nan)
    assert np.nanmean(iou) == pytest.approx(result.test["test/miou"])
    masks = table.masks[table.parts["test"]]
    assert np.array_equal(arrays["truth"][:, 0], (masks == 0).sum((1, 2)))


def test_a_trainable_that_predicts_nothing_keeps_nothing(digits):
    kept = InMemory()
    made = Rotation.Config(dataset="d", backbone="resnet10_slim", small_input=True, epochs=1)
    fit(Rotation, made, digits, checkpoints=kept)
    assert PREDICTIONS not in kept.arrays


def watch(digits, calls):
    """What is seen of a model that is called with batches of so many test images."""
    trainable = Classify(config(), digits.info)
    trainable.set_training(False)
    seen, start, sums = PredictionWatch(trainable, digits, ALONE), 0, {}
    rows = digits.parts["test"]
    for count in calls:
        part = rows[start : start + count]
        images, labels = torch.from_numpy(np.array(digits.images[part])), digits.labels[part]
        batch = Batch(images, torch.from_numpy(labels), torch.from_numpy(part), 0, 0)
        with torch.inference_mode():
            for name, value in trainable.evaluate(batch).items():
                sums[name] = sums.get(name, 0) + value
        start += count
    seen.stop()
    return seen, sums


@pytest.mark.parametrize("calls", [[], [50], [50, 30]])
def test_other_images_than_those_of_the_test_are_refused(digits, calls):
    seen, sums = watch(digits, calls)
    with pytest.raises(PredictionsDiffer, match="once for each test image"):
        seen.arrays(sums)


def test_figures_that_do_not_follow_are_refused(digits):
    seen, sums = watch(digits, [50, 40])
    assert len(seen.arrays(sums)["predicted"]) == 90
    with pytest.raises(PredictionsDiffer, match="do not follow"):
        seen.arrays({**sums, "correct": sums["correct"] + 1})
    with pytest.raises(PredictionsDiffer, match="do not follow"):
        seen.arrays({})


def test_a_model_that_is_called_twice_an_image_is_tested_and_keeps_nothing(digits, caplog):
    class Flipped(Classify):
        def evaluate(self, batch):
            super().evaluate(dataclasses.replace(batch, images=batch.images.flip(3)))
            return super().evaluate(batch)

    kept = InMemory()
    with caplog.at_level(logging.WARNING):
        result = fit(Flipped, config(), digits, checkpoints=kept)
    assert PREDICTIONS not in kept.arrays and "test/accuracy" in result.test
    assert "predictions of the test are not kept" in caplog.text


def _rank(rank: int, cache: str, folder: str) -> None:
    """Test an untrained model as one of two ranks, images shared out one by one."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    world, table = World(rank, 2, torch.device("cpu")), open_table(Path(cache))
    np.savez(f"{folder}/{rank}.npz", **predicted_by(table, world))
    dist.destroy_process_group()


def predicted_by(table, world):
    torch.manual_seed(0)
    trainable = Classify(config(), table.info)
    seen = PredictionWatch(trainable, table, world)
    sums = sums_over("test", trainable, table, world, nullcontext, 0)
    seen.stop()
    return seen.arrays(sums)


def test_two_ranks_keep_what_one_keeps(digits, tmp_path):
    cache = Path(digits.images.filename).parent
    multiprocessing.spawn(_rank, (str(cache), str(tmp_path)), nprocs=2)
    alone = predicted_by(digits, ALONE)
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as found:
            assert set(found) == set(alone)
            for name in ("rows", "predicted", "labels", "names", "fingerprint", "classes"):
                assert np.array_equal(found[name], alone[name]), name
            assert np.allclose(found["probabilities"], alone["probabilities"], atol=1e-4)
