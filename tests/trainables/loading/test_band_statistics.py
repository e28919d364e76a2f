"""Images of other channels than RGB are normalized by their own training set, and train."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError
from trainables.engine.loop import fit
from trainables.loading.decoded_cache import load_table
from trainables.loading.image_table import ImageTable
from trainables.tasks.byol import Byol
from trainables.tasks.classify import Classify
from trainables.tasks.predictor import Classifier, Segmenter, describe_model, load
from trainables.tasks.rotation import Rotation
from trainables.tasks.segment import Segment
from trainables.transforms.geometry import normalize

KINDS = {"uint8": 250, "uint16": 60_000, "int16": 4_000, "float32": 0.9}  # dtype → largest number


def make(folder: Path, dtype: str, channels: int = 5, side: int = 32, count: int = 12) -> Path:
    """Two classes that only the last band tells apart, in class folders."""
    chance = np.random.default_rng(0)
    for number, name in enumerate(("water", "wood")):
        (folder / name).mkdir(parents=True)
        for image in range(count):
            pixels = chance.random((side, side, channels)) * KINDS[dtype] / 2
            pixels[..., -1] += number * KINDS[dtype] / 2
            save(folder / name / f"{image:02}.tif", pixels.astype(dtype))
    return folder


def save(path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")


def table_of(folder: Path, **settings: Any) -> ImageTable:
    config = DatasetConfig(
        **{"type": "image_folder", "path": str(folder), "size": 32, "channels": 5} | settings
    )
    return load_table(config, folder.parent / "cache")


@pytest.mark.parametrize("dtype", KINDS)
def test_each_channel_has_mean_0_and_deviation_1_in_training(tmp_path: Path, dtype: str) -> None:
    folder = make(tmp_path / "data", dtype)
    table = table_of(folder)
    assert (table.images.shape, table.images.dtype) == ((24, 5, 32, 32), np.float32)
    training = np.asarray(table.images[table.parts["train"]], dtype=np.float64)
    assert np.allclose(training.mean((0, 2, 3)), 0, atol=1e-5)
    assert np.allclose(training.std((0, 2, 3)), 1, atol=1e-5)
    mean, std = (np.array(values)[:, None, None] for values in (table.mean, table.std))
    first = tifffile.imread(folder / "water/00.tif").transpose(2, 0, 1)
    assert np.allclose(table.images[0] * std + mean, first, rtol=1e-5, atol=KINDS[dtype] * 1e-5)
    held_out = np.asarray(table.images[table.parts["test"]], dtype=np.float64)
    assert abs(held_out.mean((0, 2, 3))).max() > 1e-4  # not of its own statistics


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_classifier_learns_what_only_the_fifth_band_shows(tmp_path: Path, dtype: str) -> None:
    table = table_of(make(tmp_path / "data", dtype))
    config = Classify.Config(
        dataset="x", backbone="resnet10_slim", small_input=True, epochs=6, batch_size=8, lr=0.02
    )
    assert fit(Classify, config, table, seed=0).test["test/accuracy"] == 1.0


def test_rotation_learns_from_other_channels_too(tmp_path: Path) -> None:
    config = Rotation.Config(dataset="x", backbone="resnet10_slim", epochs=1, batch_size=8)
    result = fit(Rotation, config, table_of(make(tmp_path / "data", "uint8")), seed=0)
    assert np.isfinite(result.test["test/loss"])


@pytest.mark.parametrize("views", ["report", "paper", "simclr"])
def test_byol_learns_from_other_channels_too(tmp_path: Path, views: str) -> None:
    config = Byol.Config(
        dataset="x", backbone="resnet10_slim", small_input=True, epochs=12, batch_size=8,
        hidden=32, projection=16, views=views, probe_every=4, select="last", target_momentum=0.9,
    )  # fmt: skip
    result = fit(Byol, config, table_of(make(tmp_path / "data", "uint16")), seed=2)
    losses = [row["train/loss"] for row in result.history]
    # rounding differs from CPU to CPU: one epoch may be up, the last four are far below the first
    assert np.mean(losses[-4:]) < 0.8 * losses[0]


@pytest.mark.parametrize("network", ["fcn32s", "deeplabv3"])
def test_segmentation_pads_with_the_mean(tmp_path: Path, network: str) -> None:
    folder = tmp_path / "data"
    chance = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(8):
        pixels = chance.integers(100, 200, (24, 20, 4)).astype(np.uint16)
        save(folder / f"images/{number}.tif", pixels)
        Image.fromarray((pixels[..., 3] > 150).astype(np.uint8)).save(
            folder / f"masks/{number}.png"
        )
    (folder / "classes.csv").write_text("id,name\n0,dark\n1,bright\n")
    table = table_of(folder, type="mask_folders", channels=4)
    assert not table.images[:, :, 24:].any() and not table.images[:, :, :, 20:].any()
    inside = np.asarray(table.images[table.parts["train"]])[:, :, :24, :20]
    assert np.allclose(inside.mean((0, 2, 3)), 0, atol=1e-4)
    assert 140 < table.mean[0] < 160
    backbone = {"fcn32s": "vgg16", "deeplabv3": "resnet50"}[network]
    config = Segment.Config(
        dataset="x", network=network, backbone=backbone, hidden=8, epochs=1, batch_size=4
    )
    result = fit(Segment, config, table, seed=0)
    assert np.isfinite(result.test["test/loss"])


def test_bands_choose_the_channels_and_their_order(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", "uint8")
    whole = table_of(folder)
    chosen = table_of(folder, channels=4, bands=[5, 1, 2, 3])
    assert np.array_equal(chosen.images, whole.images[:, [4, 0, 1, 2]])
    assert chosen.fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 4}, r"10 unreadable images|uint8 TIFF with 5 bands, not 4: correct `chan"),
        ({"channels": 4, "bands": [1, 2, 3, 6]}, "uint8 TIFF with 5 bands, so it has no band 6"),
    ],
)
def test_files_with_other_bands_are_refused_by_kind(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        table_of(make(tmp_path / "data", "uint8"), **settings)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", "float32")
    save(folder / "wood/03.tif", np.full((32, 32, 5), np.nan, dtype=np.float32))
    with pytest.raises(
        DataError, match=r"wood/03.tif \(float32 TIFF with 5 bands has numbers that"
    ):
        table_of(folder)
    table = table_of(folder, on_corrupt="skip")
    assert np.isfinite(table.images).all() and np.isfinite(table.mean).all()


def test_a_band_that_is_the_same_everywhere_becomes_0(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for number, name in enumerate(("a", "b")):
        (folder / name).mkdir(parents=True)
        for image in range(8):
            pixels = np.full((8, 8, 5), 7, dtype=np.uint8)
            pixels[..., 0] = 8 * number + image
            save(folder / name / f"{image}.tif", pixels)
    table = table_of(folder, size=8)
    assert not table.images[:, 1:].any() and table.images[:, 0].any()


def test_normalized_images_are_not_normalized_again() -> None:
    import torch

    images = torch.randn(2, 5, 4, 4)
    assert normalize(images) is images


@pytest.mark.parametrize("kind", [Classify, Segment])
def test_a_model_of_other_channels_predicts_from_files(tmp_path: Path, kind: type) -> None:
    import json

    import torch

    folder = make(tmp_path / "data", "uint16", side=40)
    table = table_of(folder, size=32)
    own = {"backbone": "resnet10_slim", "small_input": True}
    if kind is Segment:
        own = {"network": "fcn32s", "backbone": "vgg16", "hidden": 8}
    config = kind.Config(dataset="x", **own)
    trainable = kind(config, table.info)
    model = tmp_path / "model"
    model.mkdir()
    name = "segment" if kind is Segment else "classify"
    (model / "model.json").write_text(json.dumps(describe_model(name, config, table)))
    torch.save(trainable.model.state_dict(), model / "weights.pt")
    predictor = load(model)
    assert isinstance(predictor, Segmenter if kind is Segment else Classifier)
    numbers = predictor.open(folder / "wood/00.tif")
    assert numbers.shape == (40, 40, 5)
    with pytest.raises(ValueError, match=r"must be \(B, H, W, 5\) numbers"):
        predictor.predict(numbers[..., :3])
    answer = predictor.predict(numbers)
    if kind is Segment:
        assert answer.shape == (1, 40, 40)
        return
    trainable.set_training(False)
    with torch.inference_mode():
        logits = trainable.model(torch.from_numpy(np.array(table.images[table_row(table)])[None]))
    expected = logits.softmax(1)[0].numpy()
    assert np.allclose(answer[["p(water)", "p(wood)"]].to_numpy()[0], expected, atol=1e-4)


def table_row(table: ImageTable) -> int:
    """The first image of `wood`: labels count in the order of the folders."""
    return int(np.flatnonzero(table.labels == 1)[0])


def test_channels_fit_bands_limits_and_files(tmp_path: Path) -> None:
    for settings, message in (
        ({"channels": 4, "bands": [1, 2, 3]}, "bands names 3, and there are 4 channels"),
        ({"bands": [1, 2, 3, 4]}, "bands names 4, and there are 3 channels"),
        ({"channels": 4, "limits": [0, 1]}, "limits are for RGB"),
    ):
        with pytest.raises(ValueError, match=message):
            DatasetConfig(type="image_folder", **settings)
    with pytest.raises(DataError, match="lie in no files: remove bands, limits, channels and page"):
        read(DatasetConfig(type="digits", channels=4), None)
