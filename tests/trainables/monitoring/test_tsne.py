"""t-SNE maps: clusters stand apart, images keep their place, odd features do no harm."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from tests.trainables.monitoring.test_feature_quality import clusters, normal
from trainables.monitoring.tsne import tsne

pytestmark = pytest.mark.filterwarnings("error")


def test_a_map_separates_clusters() -> None:
    features, labels = clusters(240, 4)
    (points,) = tsne([features])
    assert points.shape == (240, 2)
    near = KNeighborsClassifier(5).fit(points[:120], labels[:120])
    assert near.score(points[120:], labels[120:]) >= 0.95
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-9)


def test_maps_are_the_same_for_a_seed() -> None:
    snapshots = [clusters(80, 3)[0], clusters(80, 3, noise=0.5)[0]]
    once, again, other = (tsne(snapshots, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert not np.allclose(once, other)


def test_an_image_stays_near_its_place_from_map_to_map() -> None:
    features, _ = clusters(240, 4)
    first, second, third = tsne([features, features, 2 * features])
    for later in (second, third):
        moved = np.linalg.norm(later - first, axis=1)
        assert np.median(moved) < 0.25 * first.std()
        assert np.quantile(moved, 0.95) < 0.5 * first.std()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_features_are_one_point_and_the_map_before_goes_on(value: float) -> None:
    features, _ = clusters(60, 3)
    equal = np.full_like(features, value)
    assert not np.any(tsne([equal, equal]))
    first, point, third = tsne([features, equal, features])
    assert not point.any()
    np.testing.assert_array_equal(third, tsne([features, features])[1])
    assert first.any()


ODD = {
    "four": normal(4, 8),
    "five": normal(5, 8),
    "four corners": torch.eye(4),
    "one dimension": normal(40, 1),
    "one line": normal(60, 1) * torch.ones(8),
    "pairs of equal ones": normal(20, 8).repeat(2, 1),
    "half equal": torch.cat([torch.ones(60, 8), normal(60, 8)]),
    "two points": torch.cat([torch.ones(60, 8), -torch.ones(60, 8)]),
    "zeros among others": torch.cat([torch.zeros(30, 8), normal(30, 8)]),
    "nearly equal": 1 + 1e-4 * normal(60, 8),
    "huge": 1e30 * normal(40, 8),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_features_have_finite_maps(case: str) -> None:
    maps = tsne([ODD[case].numpy()] * 2)
    assert np.isfinite(maps).all()


def test_read_only_features_are_taken() -> None:
    features, _ = clusters(20, 2)
    features.flags.writeable = False
    assert len(tsne([features])) == 1


def test_features_that_cannot_be_mapped_are_refused() -> None:
    features, _ = clusters(20, 2)
    with pytest.raises(ValueError, match=r"snapshot 0: features are \(3, 16\), must be .* least 4"):
        tsne([features[:3]])
    with pytest.raises(ValueError, match=r"snapshot 1: features are \(19, 16\)"):
        tsne([features, features[:19]])
    with pytest.raises(ValueError, match=r"snapshot 0: features are \(20,\)"):
        tsne([features[:, 0]])
    features[4, 4] = math.nan
    with pytest.raises(ValueError, match="snapshot 0: features are not finite"):
        tsne([features])


def test_tsne_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    tsne([normal(4, 8).numpy(), normal(4, 8, seed=1).numpy()])
    assert capfd.readouterr() == ("", "")
