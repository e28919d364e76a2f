"""The embedded scenes: the same every time, with every class, masks exact."""

import hashlib
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from trainables.data.datasets import DatasetConfig, read
from trainables.data.named_datasets import SCENE_CLASSES, SIDE, Scenes, digit_scenes
from trainables.dataset import DataError


def test_scenes_are_the_same_every_time_and_show_every_class() -> None:
    images, masks = digit_scenes()
    again = digit_scenes()
    assert np.array_equal(images, again[0]) and np.array_equal(masks, again[1])
    assert images.shape == (60, SIDE, SIDE, 3) and masks.shape == (60, SIDE, SIDE)
    assert images.dtype == masks.dtype == np.uint8
    assert set(np.unique(masks)) == set(range(len(SCENE_CLASSES)))
    shares = np.bincount(masks.ravel()) / masks.size
    assert shares[0] > 0.7 and shares[1:].min() > 0.01


def test_every_image_shows_a_digit_and_differs_from_the_others() -> None:
    images, masks = digit_scenes()
    assert (masks > 0).any(axis=(1, 2)).all()
    assert len({image.tobytes() for image in images}) == len(images)


def test_scenes_without_settings_stay_those_of_all_earlier_studies() -> None:
    """The digest is that of the images and masks before scenes had settings."""
    images, masks = digit_scenes()
    digest = hashlib.sha256(images.tobytes() + masks.tobytes()).hexdigest()
    assert digest.startswith("1a8667ae211af198")
    again = digit_scenes(Scenes(), SIDE)
    assert np.array_equal(images, again[0]) and np.array_equal(masks, again[1])


def test_scenes_are_drawn_as_a_study_says() -> None:
    scenes = {"number": 12, "digit": 48, "digits": [1, 1], "ink": 200, "brightness": 0.5}
    config = DatasetConfig.model_validate({"type": "digit_scenes", "size": 80, "scenes": scenes})
    source = read(config, None)
    assert source.masks is not None and len(source.names) == 12
    thicker = read(
        config.model_copy(update={"scenes": Scenes.model_validate({**scenes, "threshold": 4})}),
        None,
    )
    assert thicker.masks is not None
    for index in range(12):
        pixels, mask = np.asarray(source.decode(index)), source.masks.decode(index)
        assert pixels.shape == (80, 80, 3) and mask.shape == (80, 80)
        assert pixels[mask > 0].min() >= 200 and pixels[mask == 0].max() <= 127
        assert len(np.unique(pixels[mask > 0], axis=0)) == 1  # one digit in one color
        rows, columns = np.nonzero(mask)
        assert max(np.ptp(rows), np.ptp(columns)) < 48
        assert ((thicker.masks.decode(index) > 0) >= (mask > 0)).all()


@pytest.mark.parametrize(("size", "words"), [
    (32, "set size to 48 or more, and to less than 427"), (500, "size 500 must hold"),
])  # fmt: skip
def test_scenes_that_do_not_fit_are_refused(size: int, words: str) -> None:
    config = DatasetConfig(type="digit_scenes", size=size, scenes=Scenes(digit=48))
    with pytest.raises(DataError, match=words):
        read(config, None)


@pytest.mark.parametrize(("settings", "words"), [
    ({"type": "digits", "scenes": {}}, "scenes are for type digit_scenes, not digits"),
    ({"type": "digit_scenes", "scenes": {"digits": [3, 2]}}, "must be fewest, then most"),
    ({"type": "digit_scenes", "scenes": {"digit": 20}}, "multiple of 8"),
])  # fmt: skip
def test_settings_of_scenes_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DatasetConfig.model_validate(settings)
