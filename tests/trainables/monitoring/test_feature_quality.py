"""kNN accuracy and spread against other hands and closed forms."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from trainables.monitoring.feature_quality import (
    collapsed,
    feature_spread,
    knn_accuracy,
    linear_accuracy,
)

pytestmark = pytest.mark.filterwarnings("error")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clusters(
    images: int, classes: int, noise: float = 0.3, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Features in 16 dimensions around one centre a class, and the labels."""
    labels = torch.arange(images) % classes
    features = normal(classes, 16)[labels] + noise * normal(images, 16, seed=seed)
    return features.numpy(), labels.numpy()


def by_sklearn(neighbours: int = 20) -> KNeighborsClassifier:
    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / 0.07)

    return KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute", weights=weights)


@pytest.mark.parametrize("bank", [8, 300, 2500])
def test_knn_is_sklearns_with_the_same_weights(bank: int) -> None:
    known, labels = clusters(bank, 4, noise=2.0)
    asked, answers = clusters(1100, 4, noise=2.0, seed=2)
    expected = by_sklearn(min(20, bank)).fit(known, labels).score(asked, answers)
    given = [torch.from_numpy(each) for each in (asked, answers, known, labels)]
    assert 0.3 < expected < 0.95
    assert knn_accuracy(*given) == pytest.approx(expected, abs=1e-9)


def test_knn_of_its_own_bank_leaves_the_image_itself_out() -> None:
    features, labels = normal(1500, 8), torch.arange(1500) % 3
    found = knn_accuracy(features, labels, features, labels, own=True)
    near = by_sklearn(21).fit(features, labels).kneighbors(features, return_distance=False)
    assert (near[:, 0] == np.arange(1500)).all()
    weights = np.exp(np.take_along_axis((unit := unit_rows(features)) @ unit.T, near, 1) / 0.07)
    votes = np.stack([(weights * (labels.numpy()[near] == k))[:, 1:].sum(1) for k in range(3)])
    assert found == pytest.approx(float((votes.argmax(0) == labels.numpy()).mean()), abs=1e-9)
    assert knn_accuracy(features, labels, features, labels) > found + 0.1


def unit_rows(features: torch.Tensor) -> np.ndarray:
    return (features / features.norm(dim=1, keepdim=True)).double().numpy()


def test_knn_does_not_depend_on_the_length_of_features() -> None:
    features, labels = (torch.from_numpy(each) for each in clusters(200, 4, noise=1.5))
    long = features * torch.rand(200, 1, generator=torch.Generator().manual_seed(2)) * 100
    expected = knn_accuracy(features, labels, features, labels, own=True)
    assert knn_accuracy(long, labels, long, labels, own=True) == expected


def test_knn_of_features_that_are_not_finite_is_not_a_number() -> None:
    features, labels = normal(30, 4), torch.arange(30) % 2
    features[3, 1] = math.inf
    assert math.isnan(knn_accuracy(features, labels, features, labels, own=True))


def test_knn_without_a_neighbour_is_refused() -> None:
    one, label = normal(1, 4), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="1 images have no neighbors among 1"):
        knn_accuracy(one, label, one, label, own=True)
    assert knn_accuracy(one, label, one, label) == 1


@pytest.mark.parametrize("width", [4, 64])
def test_isotropic_features_have_the_highest_spread(width: int) -> None:
    std, rank = feature_spread(normal(20_000, width))
    assert std == pytest.approx(1 / math.sqrt(width), rel=0.01)
    assert rank == pytest.approx(width, rel=0.01)
    assert not collapsed(std, rank, width)


@pytest.mark.parametrize("images", [50, 500])
def test_features_on_one_line_have_rank_one(images: int) -> None:
    direction, sign = normal(100), torch.where(torch.arange(images) % 5 == 0, -1.0, 1.0)
    std, rank = feature_spread(sign[:, None] * direction * torch.rand(images, 1).add(0.1))
    unit = (direction / direction.norm()).abs().mean()
    assert std == pytest.approx(float(unit) * math.sqrt(1 - 0.6**2), rel=1e-4)
    assert rank == pytest.approx(1, abs=1e-3)
    assert collapsed(std, rank, 100)


@pytest.mark.parametrize("shape", [(100, 8), (5, 300)])
def test_rank_is_the_one_of_the_singular_values(shape: tuple[int, int]) -> None:
    features = normal(*shape) * torch.linspace(0.1, 2, shape[1])
    unit = torch.nn.functional.normalize(features.double())
    shares = torch.linalg.svdvals(unit - unit.mean(0))
    shares = shares[shares > 1e-9] / shares.sum()
    assert feature_spread(features)[1] == pytest.approx(float((-shares * shares.log()).sum().exp()))


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-20, 1e20])
def test_features_that_are_all_the_same_have_no_spread(value: float) -> None:
    std, rank = feature_spread(torch.full((50, 8), value))
    assert (std, rank) == (pytest.approx(0, abs=1e-9), 1)
    assert collapsed(std, rank, 8)


def test_noise_around_one_point_is_a_collapse_whatever_its_rank() -> None:
    std, rank = feature_spread(1 + 1e-3 * normal(2000, 256))
    assert rank > 200
    assert collapsed(std, rank, 256)


def test_features_that_are_not_finite_have_no_spread_and_tell_nothing_apart() -> None:
    features = normal(50, 8)
    features[0, 0] = math.nan
    assert all(map(math.isnan, feature_spread(features)))
    assert collapsed(*feature_spread(features), 8)


@pytest.mark.parametrize(
    ("std", "rank", "width", "expected"),
    [
        (0.1, 20.0, 100, False),
        (0.0021, 20.0, 100, False),
        (0.0019, 20.0, 100, True),
        (0.1, 1.4, 100, True),
        (0.0019, 20.0, 2500, False),
        (math.nan, 20.0, 100, True),
    ],
)
def test_collapsed_is_a_spread_near_zero_or_a_rank_near_one(
    std: float, rank: float, width: int, expected: bool
) -> None:
    assert collapsed(std, rank, width) is expected


def test_workers_do_not_load_tsne() -> None:
    command = [
        sys.executable,
        "-c",
        "import sys, trainables.monitoring.feature_quality; print(*sys.modules)",
    ]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"openTSNE", "sklearn", "scipy"} & set(loaded)


@pytest.mark.parametrize(("bank", "classes"), [(12, 2), (300, 4), (2000, 7)])
def test_the_linear_probe_is_sklearns_ridge_classifier(bank: int, classes: int) -> None:
    """With fewer images than dimensions too; the last dimension never varies."""
    known, labels = clusters(bank, classes, noise=2.0)
    asked, answers = clusters(1500, classes, noise=2.0, seed=2)
    known[:, -1] = asked[:, -1] = 3.0
    scaler = StandardScaler().fit(known.astype(np.float64))
    model = RidgeClassifier(alpha=bank / 10).fit(scaler.transform(known), labels)
    expected = model.score(scaler.transform(asked.astype(np.float64)), answers)
    given = [torch.from_numpy(each) for each in (asked, answers, known, labels)]
    assert 1 / classes < expected < 0.97
    assert linear_accuracy(*given) == pytest.approx(expected, abs=1e-9)


def test_the_linear_probe_is_not_a_number_or_refused_as_neighbors_are() -> None:
    features, labels = normal(30, 4), torch.arange(30) % 2
    with pytest.raises(ValueError, match="30 images cannot be judged by 0"):
        linear_accuracy(features, labels, features[:0], labels[:0])
    features[3, 1] = math.inf
    assert math.isnan(linear_accuracy(features, labels, features, labels))


def test_the_rank_of_few_images_says_nothing() -> None:
    """Two images that differ have rank 1: they are a line, and no point."""
    two = torch.eye(8)[:2]
    std, rank = feature_spread(two)
    assert rank == pytest.approx(1.0)
    assert not collapsed(std, rank, 8, images=2) and collapsed(std, rank, 8, images=100)
    assert collapsed(*feature_spread(torch.ones(2, 8)), 8, images=2)
