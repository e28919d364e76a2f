"""Names of the files that a Run keeps to be drawn: features, masks, confusion, architecture."""

from pathlib import Path

FEATURES, MAPS = "features", "maps"  # a folder in a Run's, and the pictures' folder therein


CONFUSION = f"{FEATURES}/confusion.npz"  # the test's confusion matrix


ARCHITECTURE = f"{FEATURES}/architecture.npz"  # what the model is made of


LAST_MASKS = "last.npz"  # among the pictures of masks: what the last ones are drawn from


def feature_file(epoch: int) -> str:
    """Where the features of an epoch lie in a Run's folder."""
    return f"{FEATURES}/epoch_{epoch:05d}.npz"


def mask_file(epoch: int) -> str:
    """Where the masks of watched images lie."""
    return f"{FEATURES}/masks_{epoch:05d}.npz"


def kept_features(folder: Path) -> dict[int, Path]:
    """epoch → file, ascending."""
    return _by_epoch(folder, "epoch")


def kept_masks(folder: Path) -> dict[int, Path]:
    """epoch → file, ascending."""
    return _by_epoch(folder, "masks")


def _by_epoch(folder: Path, kind: str) -> dict[int, Path]:
    found = sorted(folder.glob(f"{kind}_*.npz"))
    return {int(path.stem.partition("_")[2]): path for path in found}
