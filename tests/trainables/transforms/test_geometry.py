"""Batched augmentation equals one image at a time, written slowly, with the same draws."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import CenterCrop, RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from trainables.numerics.randomness import uniform
from trainables.transforms import geometry as transforms
from trainables.transforms.geometry import AUGMENTATIONS, CROP_DRAWS, MEAN, STD, normalize

ALMOST_ONE = 1 - 2**-24  # the largest draw


def noise(count: int = 12, height: int = 8, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def draws_for(count: int, draws: int) -> Tensor:
    return uniform(0, 1, torch.arange(count), draws)


def ramp(count: int, side: int) -> Tensor:
    """Images whose first channel is the column and whose second is the row, in sides."""
    centres = (torch.arange(side) + 0.5) / side
    column, row = centres.expand(side, side), centres.view(-1, 1).expand(side, side)
    return torch.stack([column, row, torch.zeros(side, side)]).expand(count, -1, -1, -1)


def slow_crop(image: Tensor, vertical: float, horizontal: float) -> Tensor:
    height, width = image.shape[1:]
    reach = max(1, height // 8)
    padded = torch.zeros(3, height + 2 * reach, width + 2 * reach, dtype=image.dtype)
    padded[:, reach : reach + height, reach : reach + width] = image
    top, left = int(vertical * (2 * reach + 1)), int(horizontal * (2 * reach + 1))
    return padded[:, top : top + height, left : left + width]


def box_of(draws: list[float]) -> tuple[float, float, float, float]:
    """(left, top, width, height) of a resized crop, in sides of the image."""
    vertical, horizontal, *tries = draws
    boxes = []
    for area, aspect in zip(tries[::2], tries[1::2], strict=True):
        area, aspect = 0.08 + 0.92 * area, (4 / 3) ** (2 * aspect - 1)
        boxes.append((math.sqrt(area * aspect), math.sqrt(area / aspect)))
    width, height = next((box for box in boxes if max(box) <= 1), boxes[0])
    width, height = min(1, width), min(1, height)
    return horizontal * (1 - width), vertical * (1 - height), width, height


def slow_sample(plane: np.ndarray, row: float, column: float) -> float:
    """Bilinear between the four pixels around; the edge is repeated outside."""
    height, width = plane.shape
    top, left = math.floor(row), math.floor(column)
    value = 0.0
    for r, weight_r in ((top, 1 - (row - top)), (top + 1, row - top)):
        for c, weight_c in ((left, 1 - (column - left)), (left + 1, column - left)):
            inside = plane[min(max(r, 0), height - 1), min(max(c, 0), width - 1)]
            value += weight_r * weight_c * inside
    return value


def slow_resized_crop(image: Tensor, draws: Tensor) -> np.ndarray:
    left, top, wide, high = box_of(draws.tolist())
    _, height, width = image.shape
    result = np.zeros(image.shape)
    for channel, row, column in np.ndindex(*image.shape):
        y = (top + (row + 0.5) / height * high) * height - 0.5
        x = (left + (column + 0.5) / width * wide) * width - 0.5
        result[channel, row, column] = slow_sample(image[channel].numpy(), y, x)
    return result


def test_normalise_takes_imagenet_statistics_off_each_channel() -> None:
    images = torch.stack([torch.full((3, 2, 2), v, dtype=torch.uint8) for v in (0, 51, 255)])
    result = normalize(images)
    assert result.dtype == torch.float32
    for value, image in zip((0.0, 0.2, 1.0), result, strict=True):
        for channel in range(3):
            wanted = (value - MEAN[channel]) / STD[channel]
            assert image[channel].flatten().tolist() == pytest.approx([wanted] * 4, rel=1e-5)


def test_flip_mirrors_exactly_the_images_below_one_half() -> None:
    images, draws = noise(), draws_for(12, 1)
    draws[0], draws[1] = 0.5, 0.49999
    result = transforms.flip(images, draws)
    for image, flipped, (draw,) in zip(images, result, draws, strict=True):
        assert torch.equal(flipped, image[:, :, range(7, -1, -1)] if draw < 0.5 else image)
    assert 0 < (draws < 0.5).sum() < len(draws)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 8), (8, 12), (17, 9), (32, 32)])
def test_crop_is_padding_and_slicing(height: int, width: int) -> None:
    images, draws = noise(12, height, width), draws_for(12, 2)
    draws[:4] = torch.tensor([[0.0, 0.0], [0.0, ALMOST_ONE], [ALMOST_ONE, 0.0], [ALMOST_ONE] * 2])
    result = transforms.crop(images, draws)
    assert (result.dtype, result.shape) == (images.dtype, images.shape)
    for image, cropped, (vertical, horizontal) in zip(images, result, draws.tolist(), strict=True):
        assert torch.equal(cropped, slow_crop(image, vertical, horizontal))


def test_crop_shifts_four_pixels_each_way_at_32_and_all_shifts_alike() -> None:
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[..., 16, 16] = 1
    result = transforms.crop(image.expand(900, -1, -1, -1), draws_for(900, 2))
    places = result[:, 0].flatten(1).argmax(1)
    for place in (places // 32, places % 32):
        counts = torch.bincount(place - 12)
        assert len(counts) == 9 and counts.min() > 60 and counts.max() < 145


@pytest.mark.parametrize("turns", range(4))
def test_rotate90_turns_each_image_like_torch(turns: int) -> None:
    images, wanted = noise(), (torch.arange(12) + turns) % 4
    for image, result, k in zip(images, transforms.rotate90(images, wanted), wanted, strict=True):
        assert torch.equal(result, torch.rot90(image, int(k), (1, 2)))


def test_rotate90_is_counter_clockwise() -> None:
    image = torch.zeros(1, 3, 4, 4)
    image[..., 0, 3] = 1  # the upper right corner
    assert transforms.rotate90(image, torch.tensor([1]))[0, 0, 0, 0] == 1


@pytest.mark.parametrize(("height", "width"), [(6, 6), (5, 9)])
def test_resized_crop_is_bilinear_sampling_of_its_box(height: int, width: int) -> None:
    images, draws = noise(10, height, width).float(), draws_for(10, CROP_DRAWS)
    draws[0], draws[1] = 0.0, ALMOST_ONE  # none of the second's tries fits
    draws[2, 2], draws[2, 3] = ALMOST_ONE, 0.0  # its first does not
    result = transforms.resized_crop(images, draws)
    assert (result.dtype, result.shape) == (images.dtype, images.shape)
    for image, cropped, draw in zip(images, result, draws, strict=True):
        assert np.abs(cropped.numpy() - slow_resized_crop(image, draw)).max() < 0.05


def test_resized_crop_of_the_full_area_changes_nothing() -> None:
    images = noise().float()
    whole = torch.tensor([[0.3, 0.9, *[ALMOST_ONE, 0.5] * 10]]).expand(12, -1)
    assert torch.allclose(transforms.resized_crop(images, whole), images, atol=0.01)


def test_resized_crop_keeps_to_its_areas_aspects_and_to_the_image() -> None:
    side, count = 16, 600
    result = transforms.resized_crop(ramp(count, side), draws_for(count, CROP_DRAWS))
    # a ramp stays a ramp: the slope in the middle is the width (or height) of the box
    width = (result[:, 0, 8, 8] - result[:, 0, 8, 7]) * side
    height = (result[:, 1, 8, 8] - result[:, 1, 7, 8]) * side
    area, aspect = width * height, width / height
    assert 0.079 < area.min() < 0.1 and 0.9 < area.max() < 1.001
    assert 0.749 < aspect.min() < 0.78 and 1.28 < aspect.max() < 1.334
    assert aspect.log().mean().abs() < 0.03
    torch.manual_seed(0)  # torchvision's own draws
    boxes = [
        RandomResizedCrop.get_params(torch.empty(3, 512, 512), (0.08, 1.0), (3 / 4, 4 / 3))
        for _ in range(count)
    ]
    areas = torch.tensor([high * wide / 512**2 for _, _, high, wide in boxes])
    assert area.mean() == pytest.approx(float(areas.mean()), abs=0.03)
    touching = (torch.maximum(width, height) > 0.999).float().mean()
    assert touching < 0.02  # as clamped rectangles they would be 14 %
    for centre, extent in ((result[:, 0, 8, 7:9], width), (result[:, 1, 7:9, 8], height)):
        middle = centre.mean(1)
        assert (middle - extent / 2).min() > -1e-3 and (middle + extent / 2).max() < 1 + 1e-3
        assert (middle - extent / 2).min() < 0.02 and (middle + extent / 2).max() > 0.98


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 12), (9, 7)])
def test_an_augmentation_gives_normalised_floats_of_the_same_shape(
    name: str, height: int, width: int
) -> None:
    draws, augment = AUGMENTATIONS[name]
    images = noise(12, height, width)
    untouched = images.clone()
    result = augment(images, draws_for(12, draws))
    assert (result.dtype, result.shape) == (torch.float32, images.shape)
    assert torch.equal(images, untouched)
    black, white = normalize(torch.tensor([0, 255]).repeat(3, 1).view(1, 3, 1, 2)).unbind(-1)
    assert (result >= black[..., None] - 1e-4).all() and (result <= white[..., None] + 1e-4).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_declared_draw_is_used_and_no_other(name: str) -> None:
    declared, augment = AUGMENTATIONS[name]
    draws = draws_for(12, declared)
    before = augment(noise(), draws)
    for draw in range(declared):
        if name == "resized_crop_flip" and 4 <= draw < CROP_DRAWS:  # of tries that few images need
            continue
        moved = draws.clone()
        moved[:, draw] = (moved[:, draw] + 0.5) % 1
        assert not torch.equal(augment(noise(), moved), before)
    assert torch.equal(augment(noise(), draws_for(12, declared + 1)), before)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_image_has_its_own_parameters_in_any_batch(name: str) -> None:
    declared, augment = AUGMENTATIONS[name]
    copies = noise(1).expand(12, -1, -1, -1)
    draws = draws_for(12, declared)
    together = augment(copies, draws)
    alone = torch.cat([augment(copies[:1], row[None]) for row in draws])
    assert torch.allclose(together, alone, atol=1e-5)
    if declared:
        assert len(together.flatten(1).unique(dim=0)) > 1


def test_the_combined_augmentations_are_their_parts_in_order() -> None:
    images, draws = noise(), draws_for(12, 5)
    cropped = transforms.crop(images, draws[:, :2])
    assert torch.equal(AUGMENTATIONS["none"][1](images, draws[:, :0]), normalize(images))
    assert torch.equal(AUGMENTATIONS["crop"][1](images, draws[:, :2]), normalize(cropped))
    flipped = normalize(transforms.flip(cropped, draws[:, 2:3]))
    assert torch.equal(AUGMENTATIONS["crop_flip"][1](images, draws[:, :3]), flipped)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_is_the_same_where_the_model_runs_in_bfloat16(name):
    images, (draws, augment) = noise(), AUGMENTATIONS[name]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = augment(images, draws_for(12, draws))
    assert torch.equal(within, augment(images, draws_for(12, draws)))


@pytest.mark.parametrize(("size", "side"), [(256, 224), (9, 4), (10, 5), (8, 8)])
def test_the_center_is_torchvisions(size: int, side: int) -> None:
    images = noise(2, size, size)
    assert torch.equal(transforms.center_crop(images, side), CenterCrop(side)(images))


def test_a_crop_of_a_larger_image_is_anywhere_in_it() -> None:
    images = noise(400, 12, 12)
    draws = draws_for(400, 2)
    draws[:2] = torch.tensor([[0.0, ALMOST_ONE], [ALMOST_ONE, 0.0]])
    result = transforms.crop(images, draws, 9)
    seen = set()
    for image, cropped, (vertical, horizontal) in zip(images, result, draws.tolist(), strict=True):
        top, left = int(vertical * 4), int(horizontal * 4)
        assert torch.equal(cropped, image[:, top : top + 9, left : left + 9])
        seen.add((top, left))
    assert len(seen) == 16


def draws_of(box: tuple[int, int, int, int], size: int) -> Tensor:
    """The uniforms that draw a box (top, left, height, width) in px, one of area 0.08 to 1."""
    top, left, height, width = box
    area = (height * width / size**2 - 0.08) / 0.92
    aspect = math.log(width / height) / math.log(4 / 3) / 2 + 0.5
    down, across = (
        place / (size - length) if length < size else 0.0
        for place, length in ((top, height), (left, width))
    )
    return torch.tensor([[down, across, *[area, aspect] * 10]])


@pytest.mark.parametrize(
    ("box", "side"),
    [
        ((0, 0, 64, 64), 40),  # made smaller
        ((7, 12, 48, 48), 20),
        ((10, 3, 24, 30), 16),
        ((30, 20, 20, 20), 48),  # made larger
        ((5, 6, 40, 36), 38),  # smaller one way, larger the other
    ],
)
def test_a_view_is_torchvisions_antialiased_crop_of_the_larger_image(
    box: tuple[int, int, int, int], side: int
) -> None:
    images = noise(3, 64, 64).float()
    result = transforms.resized_crop(images, draws_of(box, 64).expand(3, -1), 0.08, side)
    wanted = reference.resized_crop(images, *box, [side, side], antialias=True)
    # a box's edges are real numbers here: a pixel on its edge may just be out
    assert float((result - wanted).abs().mean()) < 0.2
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(result[inner], wanted[inner], atol=0.05, rtol=0)


def test_a_small_view_keeps_the_detail_of_the_file() -> None:
    """8 % of the area at 224 px, cut from 256 px or from a thumbnail of 96 px: the larger file's
    view has more than twice the detail of the thumbnail's."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 256, 256, generator=generator)
    thumbnail = reference.resize(image, [96, 96], antialias=True)
    part = torch.tensor([[0.4, 0.6, *[0.0, 0.5] * 10]])
    detail = [
        float(transforms.resized_crop(given, part, 0.08, 64).diff(dim=3).std())
        for given in (image, thumbnail)
    ]
    assert detail[0] > 2 * detail[1]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_gives_the_side_that_is_wanted(name: str) -> None:
    draws, augment = AUGMENTATIONS[name]
    images, given = noise(12, 16, 16), draws_for(12, draws)
    assert augment(images, given, 9).shape == (12, 3, 9, 9)
    assert torch.equal(augment(images, given, 16), augment(images, given))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = augment(images, given, 9)
    assert torch.equal(within, augment(images, given, 9))
