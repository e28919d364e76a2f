"""Batched colour operations equal torchvision's, image by image."""

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torch import Tensor

from trainables.transforms import color


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    found = torch.rand(12, 3, 16, 16, generator=generator)
    found[0] = 0.5  # grey, so without a hue
    found[1, :, :8] = 0.0
    found[2, 0] = found[2, 1]
    return found


FACTORS = torch.linspace(0.4, 1.6, 12)
SHIFTS = torch.linspace(-0.5, 0.5, 12)


@pytest.mark.parametrize(
    "ours, theirs, values",
    [
        (color.brightness, reference.adjust_brightness, FACTORS),
        (color.contrast, reference.adjust_contrast, FACTORS),
        (color.saturation, reference.adjust_saturation, FACTORS),
        (color.hue, reference.adjust_hue, SHIFTS),
    ],
)
def test_an_operation_equals_torchvisions_on_every_image(images, ours, theirs, values):
    wanted = [theirs(image, float(value)) for image, value in zip(images, values, strict=True)]
    torch.testing.assert_close(ours(images, values), torch.stack(wanted), atol=2e-5, rtol=0)


def test_jitter_applies_each_image_its_own_operations_in_its_own_order(images):
    draws = torch.rand(12, 9, generator=torch.Generator().manual_seed(1))
    strengths, chance = (0.4, 0.4, 0.2, 0.1), 0.8
    wanted = images.clone()
    functions = [
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    ]
    for image, draw in zip(wanted, draws, strict=True):
        for number in draw[4:8].argsort().tolist() if draw[8] < chance else []:
            value = float((2 * draw[number] - 1) * strengths[number]) + (number != 3)
            image[:] = functions[number](image, value)
    found = color.jitter(images, draws, strengths, chance)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    kept = draws[:, 8] >= chance
    assert kept.any() and torch.equal(found[kept], images[kept])


def test_grey_and_solarize_follow_their_draws(images):
    draws = torch.linspace(0, 0.99, 12).view(-1, 1)
    grey = color.to_gray(images, draws, 0.5)
    solar = color.solarize(images, draws, 0.5)
    for row in range(12):
        struck = bool(draws[row, 0] < 0.5)
        wanted = reference.rgb_to_grayscale(images[row], 3) if struck else images[row]
        torch.testing.assert_close(grey[row], wanted, atol=1e-4, rtol=0)
        wanted = reference.solarize(images[row], 0.5) if struck else images[row]
        torch.testing.assert_close(solar[row], wanted)


def test_blur_equals_torchvisions_with_each_images_own_sigma():
    images = torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    draws = torch.tensor([[0.0, 0.1], [0.9, 0.5], [0.2, 0.9], [0.4, 0.5]])
    found = color.blur(images, draws, 0.5)
    assert torch.equal(found[1], images[1])
    for row in (0, 2, 3):
        sigma = float(0.1 + 1.9 * draws[row, 1]) / 2  # half of 224 px
        wanted = reference.gaussian_blur(images[row], [11, 11], [sigma, sigma])
        torch.testing.assert_close(found[row], wanted, atol=1e-4, rtol=0)


def test_only_the_chosen_images_change(images):
    values = torch.linspace(0.5, 1.5, 12)
    chosen = torch.arange(12) % 3 == 0
    some = color.replace_rows(images.clone(), chosen, color.brightness, images, values)
    every = color.brightness(images, values)  # which is what a GPU computes
    assert torch.equal(some, torch.where(chosen.view(-1, 1, 1, 1), every, images))


def test_brightness_and_contrast_of_bands_are_those_of_the_numbers_that_they_stand_for():
    mean, deviation = 400.0, 50.0  # so that black, two deviations below the mean, is 300
    raw = torch.rand(4, 5, 8, 8, generator=torch.Generator().manual_seed(0)) * 200 + 300
    draws = torch.rand(4, color.JITTER_DRAWS, generator=torch.Generator().manual_seed(1))
    draws[0, 8], draws[1:, 8] = 0.9, 0.1
    made = color.jitter_bands((raw - mean) / deviation, draws, (0.4, 0.2), 0.8) * deviation + mean
    torch.testing.assert_close(made[0], raw[0])  # by chance not changed at all
    for image in range(1, 4):
        light, spread = 1 + 0.4 * (2 * draws[image, 0] - 1), 1 + 0.2 * (2 * draws[image, 1] - 1)
        for band in range(5):
            grey = raw[image, band] - 300
            wanted = ((grey - grey.mean()) * spread + grey.mean()) * light + 300
            torch.testing.assert_close(made[image, band], wanted, atol=2e-3, rtol=0)


@pytest.mark.parametrize("strengths", [(0.4, 0.4, 0.2, 0.1), (0.8, 0.8, 0.8, 0.2)])
def test_jitter_of_all_at_once_is_that_of_one_operation_after_the_other(strengths):
    """A GPU's path, in every order of the four operations."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(300, 3, 8, 8, generator=generator)
    images[0], images[1, 0] = 0.5, images[1, 1]
    draws = torch.rand(300, color.JITTER_DRAWS, generator=generator)
    assert len({tuple(order) for order in draws[:, 4:8].argsort(1).tolist()}) == 24
    found = color.jitter_together(images, draws, strengths, 0.8)
    torch.testing.assert_close(
        found, color.jitter(images, draws, strengths, 0.8), atol=1e-5, rtol=0
    )
    calm = draws[:, 8] >= 0.8
    assert calm.any() and torch.equal(found[calm], images[calm])
