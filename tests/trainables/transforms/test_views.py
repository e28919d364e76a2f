"""Two views: sizes, ranges, each image its own, the same for the same draws."""

import pytest
import torch

from trainables.transforms.geometry import CROP_DRAWS, MEAN, STD
from trainables.transforms.views import VIEWS, draws_of, two_views, views_together


def photographs(count: int = 6, side: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(count, 3, 4, 4, generator=generator)
    return (torch.nn.functional.interpolate(small, side, mode="bilinear") * 255).byte()


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_whole_images_that_follow_their_draws_alone(name):
    images = photographs()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    for count, view in VIEWS[name]:
        draws = torch.rand(6, count, generator=torch.Generator().manual_seed(1))
        made = view(images, draws, 0.08)
        assert made.shape == images.shape and made.dtype == torch.float32
        pixels = made * std + mean
        assert pixels.min() >= -1e-5 and pixels.max() <= 1 + 1e-5
        assert torch.equal(made, view(images, draws, 0.08))
        again = draws.clone()
        again[0] = torch.rand(count, generator=torch.Generator().manual_seed(2))
        changed = view(images, again, 0.08)
        assert not torch.equal(changed[0], made[0])
        torch.testing.assert_close(changed[1:], made[1:])  # others do not care
        alone = view(images[2:3], draws[2:3], 0.08)
        torch.testing.assert_close(alone, made[2:3])


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_the_same_where_the_model_runs_in_bfloat16(name):
    images = photographs()
    for count, view in VIEWS[name]:
        draws = torch.rand(6, count, generator=torch.Generator().manual_seed(1))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            within = view(images, draws, 0.08)
        assert torch.equal(within, view(images, draws, 0.08))


@pytest.mark.parametrize("name", VIEWS)
def test_every_draw_counts(name):
    images = photographs(64)
    for count, view in VIEWS[name]:
        draws = torch.rand(64, count, generator=torch.Generator().manual_seed(3))
        made = view(images, draws, 0.08)
        idle = []
        for column in range(count):
            if 4 <= column < CROP_DRAWS:  # of tries that few images need
                continue
            moved = draws.clone()
            moved[:, column] = (moved[:, column] + 0.5) % 1
            if torch.equal(view(images, moved, 0.08), made):
                idle.append(column)
        asked = 0.0 if name == "report" else 1.0  # one of the paper's is never solarized, nor are
        assert len(idle) <= 1 + asked  # simclr's; and what always happens needs no draw


def test_the_papers_views_differ_in_blur_and_solarization():
    (count, one), (_, two) = VIEWS["paper"]
    generator = torch.Generator().manual_seed(4)
    images = torch.randint(0, 256, (8, 3, 112, 112), generator=generator).byte()
    draws = torch.rand(8, count, generator=generator)
    draws[:, 2:CROP_DRAWS:2], draws[:, 3:CROP_DRAWS:2] = 0.999, 0.5  # the whole picture
    draws[:, -3] = 0.5  # the first view is always blurred, the second one time in ten
    rough = [view(images, draws, 0.08).diff(dim=-1).abs().mean() for view in (one, two)]
    assert rough[0] < 0.8 * rough[1]
    draws[:, -3], draws[:, -1] = 0.05, 0.1  # both blurred, the second one solarized
    first, second = (view(images, draws, 0.08) for view in (one, two))
    assert not torch.allclose(first, second)


def test_simclrs_views_leave_less_of_the_colour():
    images = photographs(64)
    kept = {}
    for name in ("report", "paper", "simclr"):
        pairs = [
            view(images, torch.rand(64, count, generator=torch.Generator().manual_seed(seed)), 0.08)
            for seed, (count, view) in enumerate(VIEWS[name])
        ]
        one, two = (pair.mean((2, 3)) for pair in pairs)  # mean colour of either view
        kept[name] = torch.corrcoef(torch.stack([one.flatten(), two.flatten()]))[0, 1]
    assert kept["simclr"] < kept["paper"] < kept["report"]


@pytest.mark.parametrize("name", VIEWS)
def test_the_smallest_share_that_a_view_shows_can_be_raised(name):
    """Of a dark picture whose rim is bright a view of almost all of it shows the rim."""
    images = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    images[:, :, [0, 1, 30, 31]] = images[:, :, :, [0, 1, 30, 31]] = 255
    dark = []
    for least in (0.08, 0.9):
        count, view = VIEWS[name][0]
        made = view(
            images, torch.rand(64, count, generator=torch.Generator().manual_seed(5)), least
        )
        dark.append(int((made.std((1, 2, 3)) < 0.3).sum()))
    assert dark[0] > 5 and dark[1] <= 1  # one that the jitter has made dark


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_other_channels_treat_each_image_and_channel_by_itself(name):
    images = torch.randn(6, 5, 24, 24, generator=torch.Generator().manual_seed(0))
    for count, view in VIEWS[name]:
        draws = torch.rand(6, count, generator=torch.Generator().manual_seed(1))
        made = view(images, draws, 0.08)
        assert made.shape == images.shape and made.dtype == torch.float32
        torch.testing.assert_close(view(images[2:3], draws[2:3], 0.08), made[2:3])
        order = [4, 2, 0, 1, 3]
        torch.testing.assert_close(view(images[:, order], draws, 0.08), made[:, order])
        assert not torch.equal(view(images, draws.roll(1, 0), 0.08), made)


def test_no_view_of_other_channels_is_solarized_or_gray():
    images = torch.randn(64, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    count, view = VIEWS["paper"][1]
    draws = torch.rand(64, count, generator=torch.Generator().manual_seed(1))
    moved = draws.clone()
    gray, solarized = count - 4, count - 1
    moved[:, [gray, solarized]] = 0.0
    assert torch.equal(view(images, draws, 0.08), view(images, moved, 0.08))
    moved[:, count - 3] = 0.0
    assert not torch.equal(view(images, draws, 0.08), view(images, moved, 0.08))


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_the_side_that_is_wanted(name):
    for count, view in VIEWS[name]:
        images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
        draws = torch.rand(4, count)
        assert view(images, draws, 0.08, 20).shape == (4, 3, 20, 20)
        assert torch.equal(view(images, draws, 0.08, 32), view(images, draws, 0.08))
        bands = torch.randn(4, 5, 32, 32)
        assert view(bands, draws, 0.08, 20).shape == (4, 5, 20, 20)


@pytest.mark.parametrize("channels", [3, 5])
@pytest.mark.parametrize("name", VIEWS)
def test_both_views_in_one_pass_are_those_of_two(name, channels):
    """A GPU's path, with the chances of either view."""
    images = photographs(64) if channels == 3 else torch.randn(64, channels, 24, 24)
    draws = torch.rand(64, draws_of(name), generator=torch.Generator().manual_seed(1))
    (first, one), (_, two) = VIEWS[name]
    parts = draws[:, :first], draws[:, first:]
    apart = one(images, parts[0], 0.08, 20), two(images, parts[1], 0.08, 20)
    for view, together, wanted in zip(
        two_views(name, images, draws, 0.08, 20),
        views_together(name, images, parts, 0.08, 20),
        apart,
        strict=True,
    ):
        assert torch.equal(view, wanted)
        torch.testing.assert_close(together, wanted, atol=1e-4, rtol=0)
