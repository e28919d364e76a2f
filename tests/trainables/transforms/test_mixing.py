"""Mixup, cutmix and erasing equal torchvision's with the same draws."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import RandomErasing, v2

from trainables.transforms.mixing import ERASE_DRAWS, MIX_DRAWS, _beta, erase, mix

SIDE = 32


def noise(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def uniforms(count: int, draws: int, seed: int = 0) -> Tensor:
    return torch.rand(count, draws, generator=torch.Generator().manual_seed(seed))


class Drawn:
    """In the place of a distribution: one share."""

    def __init__(self, share: Tensor) -> None:
        self.share = share

    def sample(self, shape: tuple[int, ...]) -> Tensor:
        return self.share


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 1.0, 2.0])
def test_shares_are_the_quantiles_of_scipys_beta(alpha: float) -> None:
    draws = torch.cat([uniforms(500, 1)[:, 0], torch.tensor([0.0, 0.5, 1 - 2**-24])])
    wanted = stats.beta.ppf(draws.double().numpy(), alpha, alpha)
    assert np.abs(_beta(draws, alpha).numpy() - wanted).max() < 2e-3
    assert np.abs(_beta(draws, alpha).numpy() - wanted).mean() < 1e-4


def test_mixup_is_torchvisions_with_its_share() -> None:
    images, draws = noise(6), uniforms(6, MIX_DRAWS)
    partners = images.roll(1, 0)  # torchvision's partners
    mixed, shares = mix(images, partners, draws, 0.4, 0.0)
    for k in range(6):
        theirs = v2.MixUp(num_classes=10).transform(
            images, {"lam": float(shares[k]), "labels": None, "batch_size": 6}
        )
        torch.testing.assert_close(mixed[k], theirs[k])
    assert float(shares.std()) > 0.05


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_is_torchvisions_with_its_share_and_place(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, draws = noise(6), uniforms(6, MIX_DRAWS, seed)
    mixed, shares = mix(images, images.roll(1, 0), draws, 0.0, 1.0)
    for k in range(6):
        reference: Any = v2.CutMix(num_classes=10)
        monkeypatch.setattr(reference, "_dist", Drawn(draws[k, 1]))  # Beta(1, 1) is uniform
        places = iter([torch.tensor([math.floor(float(draws[k, n]) * SIDE)]) for n in (3, 2)])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", lambda *given, places=places, **named: next(places))
            parameters = reference.make_params([images]) | {"labels": None, "batch_size": 6}
        assert float(shares[k]) == pytest.approx(parameters["lam_adjusted"], abs=1e-6)
        assert torch.equal(mixed[k], reference.transform(images, parameters)[k])


def test_of_both_each_is_taken_half_of_the_time() -> None:
    ones, zeros = torch.ones(600, 1, 8, 8), torch.zeros(600, 1, 8, 8)
    mixed, shares = mix(ones, zeros, uniforms(600, MIX_DRAWS), 1.0, 1.0)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), shares)
    blended = (mixed.flatten(1).std(1) == 0) & (mixed.flatten(1)[:, 0] < 1)
    assert 0.4 < float(blended.float().mean()) < 0.6


def test_erased_rectangles_are_those_of_torchvision() -> None:
    count = 1500
    draws = uniforms(count, ERASE_DRAWS)
    erased = erase(torch.ones(count, 1, SIDE, SIDE), draws, 0.5) == 0
    some = erased.flatten(1).any(1)
    assert torch.equal(some, draws[:, 0] < 0.5)
    rows, columns = erased.any(3).sum(2)[:, 0], erased.any(2).sum(2)[:, 0]
    assert torch.equal(erased.flatten(1).sum(1), rows * columns)  # whole rectangles
    torch.manual_seed(0)
    theirs = [
        RandomErasing.get_params(torch.ones(1, SIDE, SIDE), (0.02, 0.33), (0.3, 3.3), [0.0])
        for _ in range(count)
    ]
    for ours, place in ((rows[some], 2), (columns[some], 3)):
        other = np.array([found[place] for found in theirs])
        assert stats.ks_2samp(ours.numpy(), other).pvalue > 0.001
        assert int(ours.max()) < SIDE and int(ours.min()) >= 1


def test_each_image_is_erased_and_mixed_by_its_own_uniforms_in_any_batch() -> None:
    images, partners = noise(12), noise(12, 1)
    draws, more = uniforms(12, MIX_DRAWS), uniforms(12, ERASE_DRAWS)
    mixed, shares = mix(images, partners, draws, 0.3, 1.0)
    erased = erase(images, more, 0.7)
    for k in range(12):
        row = slice(k, k + 1)
        one, share = mix(images[row], partners[row], draws[row], 0.3, 1.0)
        assert torch.equal(one[0], mixed[k]) and torch.equal(share[0], shares[k])
        assert torch.equal(erase(images[row], more[row], 0.7)[0], erased[k])
