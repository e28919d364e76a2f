"""Image and mask move together; what lies outside an image does not count."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from trainables.dataset import IGNORED
from trainables.transforms.geometry import MEAN, STD, normalize
from trainables.transforms.image_and_mask import (
    COLOR_DRAWS,
    DRAWS,
    jittered_crop,
    mask_crop,
    scaled_crop,
)

SIDE = 8
STAY = [0.5, 0.5, 0.5, 0.9, 0.0]  # scale and place in the middle, not mirrored, not turned


def pairs(count: int = 4) -> tuple[Tensor, Tensor]:
    """Images whose red channel is the class id, each pixel of another class."""
    ids = torch.arange(count * SIDE * SIDE).view(count, SIDE, SIDE) % 200
    images = torch.zeros(count, 3, SIDE, SIDE)
    images[:, 0] = ids
    return images.byte(), ids.byte()


def red(images: Tensor) -> Tensor:
    """The red channel as it was before it was normalised."""
    return (images[:, 0] * STD[0] + MEAN[0]) * 255


def draws(count: int, **changes: float) -> Tensor:
    found = torch.tensor([STAY] * count)
    for name, value in changes.items():
        found[:, ["scale", "down", "across", "mirror", "turn"].index(name)] = value
    return found


def test_nothing_drawn_leaves_the_pair_as_it_is() -> None:
    images, masks = pairs()
    moved, ids = scaled_crop(images, masks, draws(4), SIDE, (1.0, 1.0))
    torch.testing.assert_close(moved, normalize(images), atol=1e-4, rtol=0)
    assert torch.equal(ids, masks)


@pytest.mark.parametrize("turn", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("mirror", [0.1, 0.9])
def test_image_and_mask_turn_and_mirror_together(turn: float, mirror: float) -> None:
    images, masks = pairs()
    given = draws(4, turn=turn, mirror=mirror)
    moved, ids = scaled_crop(images, masks, given, SIDE, (1.0, 1.0))
    torch.testing.assert_close(red(moved).round(), ids.float(), atol=0.01, rtol=0)
    flipped = masks.flip(-1) if mirror < 0.5 else masks
    ways = [torch.rot90(flipped, k, (1, 2)) for k in range(4)]
    assert sum(torch.equal(ids, way) for way in ways) == 1
    assert torch.equal(ids, ways[0]) == (turn == 0.0)


def test_a_crop_of_the_corner_is_a_part_of_the_image() -> None:
    images, masks = pairs(1)
    _, ids = scaled_crop(images, masks, draws(1, down=0.0, across=1.0), 4, (1.0, 1.0))
    assert torch.equal(ids, masks[:, :4, 4:])


def test_outside_the_image_nothing_counts() -> None:
    images, masks = pairs(1)
    moved, ids = scaled_crop(images, masks, draws(1), 2 * SIDE, (1.0, 1.0))
    inside = slice(SIDE // 2, SIDE + SIDE // 2)
    assert torch.equal(ids[:, inside, inside], masks)
    assert int((ids == IGNORED).sum()) == 3 * SIDE * SIDE
    assert float(moved[:, :, 0, 0].abs().max()) == 0  # ImageNet's mean


def test_ignored_pixels_stay_ignored_and_no_class_is_made_up() -> None:
    images, _ = pairs(16)
    masks = torch.randint(0, 3, (16, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).byte()
    masks[masks == 2] = IGNORED
    given = torch.rand(16, DRAWS, generator=torch.Generator().manual_seed(1))
    _, ids = scaled_crop(images, masks, given, SIDE, (0.5, 2.0))
    assert set(ids.unique().tolist()) <= {0, 1, IGNORED}


def test_each_pair_has_parameters_of_its_own() -> None:
    images, masks = pairs(3)
    given = torch.rand(3, DRAWS, generator=torch.Generator().manual_seed(2))
    together = scaled_crop(images, masks, given, SIDE, (0.5, 2.0))
    for k in range(3):
        alone = scaled_crop(images[k : k + 1], masks[k : k + 1], given[k : k + 1], SIDE, (0.5, 2.0))
        torch.testing.assert_close(alone[0][0], together[0][k])
        assert torch.equal(alone[1][0], together[1][k])


def test_a_pair_is_the_same_where_the_model_runs_in_bfloat16() -> None:
    images, masks = pairs()
    moving = torch.rand(4, DRAWS, generator=torch.Generator().manual_seed(1))
    found = scaled_crop(images, masks, moving, SIDE, (0.5, 2.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = scaled_crop(images, masks, moving, SIDE, (0.5, 2.0))
    assert all(torch.equal(one, two) for one, two in zip(found, within, strict=True))


def test_a_checkerboard_made_smaller_is_grey_as_torchvision_makes_it() -> None:
    side, small = 40, 24  # 0.6
    board = (torch.arange(side).view(-1, 1) + torch.arange(side)) % 2 * 255
    images = board.byte().expand(4, 3, side, side)
    masks = torch.zeros(4, side, side, dtype=torch.uint8)
    turned = draws(4)
    turned[:, 4] = torch.tensor([0.0, 0.3, 0.6, 0.9])  # every quarter turn
    scale = small / side
    moved, ids = scaled_crop(images, masks, turned, small, (scale, scale))
    wanted = reference.resize(images.float() / 255, [small, small], antialias=True)
    assert float(wanted.std()) < 0.01
    found = red(moved) / 255
    assert float(found.std()) == pytest.approx(float(wanted[:, 0].std()), abs=1e-4)
    assert not ids.any()
    bilinear = reference.resize(images.float() / 255, [small, small], antialias=False)
    assert float(bilinear.std()) > 0.1  # what it was


@pytest.mark.parametrize(("down", "across"), [(0.0, 0.0), (1.0, 0.5), (0.5, 1.0)])
def test_a_smaller_crop_is_torchvisions_antialiased_resize_and_its_crop(
    down: float, across: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(2, 40, 40, dtype=torch.uint8)
    given = draws(2, down=down, across=across)
    moved, _ = scaled_crop(images, masks, given, 16, (0.5, 0.5))  # of 40 px 20, and of these 16
    resized = reference.resize(images.float() / 255, [20, 20], antialias=True)
    top, left = round(down * 4), round(across * 4)
    wanted = (resized - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    wanted = wanted[:, :, top : top + 16, left : left + 16]
    torch.testing.assert_close(moved, wanted, atol=2e-5, rtol=0)


def test_a_smaller_image_in_a_larger_square_is_surrounded_by_the_mean() -> None:
    images, masks = pairs(2)
    moved, ids = scaled_crop(images, masks, draws(2), SIDE, (0.5, 0.5))
    outside = ids == IGNORED
    assert int(outside[0].sum()) == SIDE * SIDE * 3 // 4
    assert float(moved.abs().amax(1)[outside].max()) == 0


def test_the_mask_alone_is_that_of_the_pair() -> None:
    images, masks = pairs(8)
    given = torch.rand(8, DRAWS, generator=torch.Generator().manual_seed(3))
    _, ids = scaled_crop(images, masks, given, SIDE, (0.5, 2.0))
    assert torch.equal(mask_crop(masks, given, SIDE, (0.5, 2.0)), ids)


def test_colors_change_inside_the_image_alone() -> None:
    images, masks = pairs(4)
    given = torch.rand(4, DRAWS + COLOR_DRAWS, generator=torch.Generator().manual_seed(3))
    plain, ids = scaled_crop(images, masks, given, SIDE, (0.5, 0.7))
    colored, same = jittered_crop(images, masks, given, (SIDE, (0.5, 0.7)), 0.5)
    assert torch.equal(same, ids)
    outside = (ids == IGNORED)[:, None].expand_as(plain)
    assert torch.equal(colored[outside], plain[outside])
    assert not torch.allclose(colored[~outside], plain[~outside], atol=0.05)
    still, _ = jittered_crop(images, masks, given, (SIDE, (0.5, 0.7)), 0.0)
    torch.testing.assert_close(still, plain, atol=1e-4, rtol=0)
