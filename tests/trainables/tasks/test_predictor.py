"""A checkpoint's folder predicts: any number of images of any size, prepared as for training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from trainables.dataset import DataInfo
from trainables.loading.image_table import ImageTable
from trainables.pixels import images as training
from trainables.pixels.windows import windows
from trainables.tasks.predictor import (
    MODEL,
    Classifier,
    Segmenter,
    _load_pyfunc,
    describe_model,
    load,
)
from trainables.tasks.registry import TRAINABLES
from trainables.trainable import Trainable
from trainables.transforms.geometry import normalize

CLASSES = ("cat", "dog", "a b")
SIDE = 8


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def waves(height: int, width: int) -> np.ndarray:
    """A smooth picture: what a resize does to it hardly depends on the filter."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / width * 6 + c) * np.cos(y / height * 5 + c) for c in range(3)]
    return (128 + 100 * np.stack(waves, -1)).astype(np.uint8)


def saved(folder: Path, train: str = "full") -> Trainable:
    """A classifier that has moved away from its initial state, written as a checkpoint is."""
    kind = TRAINABLES["classify"]
    config = kind.Config.model_validate({"dataset": "t", "small_input": True, "train": train})
    torch.manual_seed(3)
    trainable = kind(config, DataInfo(CLASSES, SIDE))
    trainable.set_training(True)
    with torch.no_grad():
        trainable.model(torch.randn(8, 3, SIDE, SIDE))  # running statistics of its own
    torch.save(trainable.model.state_dict(), folder / "weights.pt")
    described = describe_model("classify", config, table(CLASSES))
    (folder / MODEL).write_text(json.dumps(described), encoding="utf-8")
    trainable.set_training(False)
    trainable.model.eval()
    return trainable


def table(classes: tuple[str, ...], **more: Any) -> ImageTable:
    """Without an image: what a model is described from."""
    none = np.zeros((0, 3, SIDE, SIDE), dtype=np.uint8)
    return ImageTable(none, np.zeros(0, dtype=np.int64), {}, classes, SIDE, "f", **more)


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    saved(tmp_path)
    return Classifier(tmp_path)


def test_predictions_are_those_of_the_model_that_was_saved(tmp_path: Path) -> None:
    trainable, pictures = saved(tmp_path), noise(5, SIDE, SIDE, 3)
    table = Classifier(tmp_path).predict(pictures)
    with torch.inference_mode():
        given = normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        wanted = trainable.model(given).softmax(1).numpy()
    assert np.allclose(table[[f"p({name})" for name in CLASSES]], wanted, atol=1e-6)
    assert table["class"].tolist() == [CLASSES[i] for i in wanted.argmax(1)]
    assert len(set(wanted.round(4).flatten())) > len(CLASSES)


def test_a_model_that_was_saved_under_old_keys_predicts_the_same(tmp_path: Path) -> None:
    saved(tmp_path)
    pictures, file = noise(2, SIDE, SIDE, 3), tmp_path / MODEL
    expected = Classifier(tmp_path).predict(pictures)
    described = json.loads(file.read_text(encoding="utf-8"))
    assert described["config"].pop("small_input") is True
    described["config"]["stem"] = "small"
    file.write_text(json.dumps(described), encoding="utf-8")
    assert Classifier(tmp_path).predict(pictures).equals(expected)


def test_a_row_an_image_says_class_probability_and_one_column_a_class(
    classifier: Classifier,
) -> None:
    table = classifier.predict(noise(4, SIDE, SIDE, 3))
    assert list(table) == ["class", "probability", "p(cat)", "p(dog)", "p(a b)"]
    assert len(table) == 4
    probabilities = table[["p(cat)", "p(dog)", "p(a b)"]].to_numpy()
    assert (probabilities > 0).all()
    assert probabilities.sum(1) == pytest.approx(np.ones(4), abs=1e-6)
    assert table["probability"].tolist() == probabilities.max(1).tolist()
    for name, row in zip(table["class"], probabilities, strict=True):
        assert name == CLASSES[row.argmax()]


def test_one_image_is_a_batch_of_one(classifier: Classifier) -> None:
    pictures = noise(3, SIDE, SIDE, 3)
    alone, together = classifier.predict(pictures[1]), classifier.predict(pictures)
    assert len(alone) == 1
    assert alone["class"][0] == together["class"][1]
    assert alone["p(cat)"][0] == pytest.approx(together["p(cat)"][1], abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (50, 3), (8, 9), (64, 48), (100, 100)])
def test_images_of_any_size_are_accepted(classifier: Classifier, shape: tuple[int, int]) -> None:
    table = classifier.predict(noise(2, *shape, 3))
    assert len(table) == 2 and np.isfinite(table["probability"]).all()


def test_lists_and_read_only_arrays_are_accepted_and_left_alone(classifier: Classifier) -> None:
    pictures = noise(2, 9, 9, 3)
    before = pictures.copy()
    pictures.flags.writeable = False
    table = classifier.predict(pictures, params={"anything": 1})
    assert np.array_equal(pictures, before)
    assert classifier.predict(list(pictures)).equals(table)


@pytest.mark.parametrize("train", ["head", "late", "full"])
def test_prediction_does_not_depend_on_the_rest_of_the_batch(tmp_path: Path, train: str) -> None:
    saved(tmp_path, train)
    classifier, pictures = Classifier(tmp_path), noise(6, SIDE, SIDE, 3)
    assert not any(module.training for module in classifier.trainable.model.modules())
    few = classifier.predict(pictures[:2])["p(cat)"].to_numpy()
    assert few == pytest.approx(classifier.predict(pictures)["p(cat)"].to_numpy()[:2], abs=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        noise(8, 8),
        noise(2, 3, 8, 8),
        noise(2, 8, 8, 4),
        noise(8, 8, 1),
        noise(1, 2, 8, 8, 3),
        noise(2, 8, 8, 3).astype(np.float32) / 255,
        noise(2, 8, 8, 3).astype(np.int64),
    ],
    ids=lambda given: f"{given.shape} {given.dtype}",
)
def test_another_shape_or_type_is_refused_by_name(classifier: Classifier, given: Any) -> None:
    with pytest.raises(ValueError, match=r"images must be \(B, H, W, 3\) uint8") as caught:
        classifier.predict(given)
    shape = ", ".join(str(side) for side in given.shape)
    assert shape in str(caught.value) and str(given.dtype) in str(caught.value)


def test_mlflows_entry_point_gives_the_same_classifier(tmp_path: Path) -> None:
    saved(tmp_path)
    pictures = noise(2, SIDE, SIDE, 3)
    loaded = _load_pyfunc(str(tmp_path))
    assert loaded.predict(pictures).equals(Classifier(tmp_path).predict(pictures))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    weights = torch.load(tmp_path / "weights.pt")
    torch.save({n: v for n, v in weights.items() if n != "head.bias"}, tmp_path / "weights.pt")
    with pytest.raises(RuntimeError, match="head.bias"):
        Classifier(tmp_path)


@pytest.mark.parametrize("shape", [(480, 640), (48, 64), (9, 12), (17, 31), (8, 8), (3, 200)])
def test_any_size_is_squared_as_for_training(
    classifier: Classifier, shape: tuple[int, int]
) -> None:
    picture = waves(*shape)
    squared = np.asarray(training.square(Image.fromarray(picture), SIDE))
    pandas.testing.assert_frame_equal(classifier.predict(picture), classifier.predict(squared))


def save(folder: Path, kind: str, colours: Any = (), **config: Any) -> Trainable:
    """A fresh model, written as a checkpoint is."""
    trained = TRAINABLES[kind]
    checked = trained.Config.model_validate({"dataset": "t", **config})
    torch.manual_seed(0)
    trainable = trained(checked, DataInfo(CLASSES, SIDE))
    torch.save(trainable.model.state_dict(), folder / "weights.pt")
    described = describe_model(kind, checked, table(CLASSES, colours=colours))
    (folder / MODEL).write_text(json.dumps(described), encoding="utf-8")
    trainable.set_training(False)
    return trainable


@pytest.mark.parametrize("shape", [(8, 8), (8, 6), (21, 34), (3, 3)])
def test_a_mask_has_the_size_of_its_image(tmp_path: Path, shape: tuple[int, int]) -> None:
    colours = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    save(tmp_path, "segment", colours, network="fcn32s", backbone="vgg16", hidden=8)
    model = load(tmp_path)
    assert isinstance(model, Segmenter) and model.colours == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    masks = model.predict(noise(2, *shape, 3))
    assert masks.shape == (2, *shape) and masks.dtype == np.uint8 and masks.max() < len(CLASSES)


def test_an_image_of_the_size_that_was_learnt_gets_the_models_own_mask(tmp_path: Path) -> None:
    trainable = save(tmp_path, "segment", network="deeplabv3")
    pictures, model = noise(2, SIDE, SIDE, 3), load(tmp_path)
    assert isinstance(model, Segmenter)
    with torch.inference_mode():
        given = normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        wanted = [trainable.model(one[None])["out"][0].argmax(0).numpy() for one in given]
    assert np.array_equal(model.predict(pictures), np.stack(wanted))


@pytest.mark.parametrize("kind", ["byol", "rotation"])
def test_a_mere_pretraining_predicts_nothing(tmp_path: Path, kind: str) -> None:
    save(tmp_path, kind, backbone="resnet18")
    assert load(tmp_path) is None


@pytest.mark.parametrize("size", [(70, 100), (64, 65), (40, 200)])
def test_a_larger_image_is_segmented_in_windows_whose_logits_are_averaged(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    kind = TRAINABLES["segment"]
    config = {"dataset": "t", "network": "fcn32s", "backbone": "vgg16", "hidden": 64}
    torch.manual_seed(0)
    trainable = kind(kind.Config.model_validate(config), DataInfo(CLASSES, 64))
    torch.nn.init.normal_(trainable.model.score.weight, std=10)
    image, shapes = waves(*size), []
    trainable.set_training(False)
    with torch.inference_mode():  # every class has the same mean: several are predicted
        corner = torch.from_numpy(image[:64, :64].copy()).permute(2, 0, 1)[None]
        means = trainable.model(normalize(corner))["out"].mean((0, 2, 3))
        trainable.model.score.bias.data -= means
    torch.save(trainable.model.state_dict(), tmp_path / "weights.pt")
    described = describe_model("segment", trainable.config, table(CLASSES)) | {"size": 64}
    (tmp_path / MODEL).write_text(json.dumps(described), encoding="utf-8")
    model = load(tmp_path)
    total, seen = np.zeros((len(CLASSES), 300, 300)), np.zeros((300, 300))
    for top, left in windows(size[::-1], 64):  # one at a time, by hand
        window = np.zeros((64, 64, 3), np.uint8)
        part = image[top : top + 64, left : left + 64]
        window[: part.shape[0], : part.shape[1]] = part
        with torch.inference_mode():
            given = normalize(torch.from_numpy(window).permute(2, 0, 1)[None])
            total[:, top : top + 64, left : left + 64] += trainable.model(given)["out"][0].numpy()
        seen[top : top + 64, left : left + 64] += 1
    wanted = (total / seen.clip(1)).argmax(0)[: size[0], : size[1]]
    (found,) = model.predict(image)
    assert found.shape == size and (found == wanted).mean() > 0.999
    assert len(np.unique(found)) > 1

    # memory that is short: fewer windows at once, and where none fits the error comes out
    def short(_: Any, given: Any) -> None:
        shapes.append(len(given[0]))
        if len(given[0]) > most:
            raise torch.OutOfMemoryError("no memory left")

    model.trainable.model.register_forward_pre_hook(short)
    most = 1
    assert np.array_equal(model.predict(image)[0], found) and max(shapes) > 1
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        model.predict(image)
