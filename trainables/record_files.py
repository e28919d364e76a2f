"""Names the files that a Run keeps to be drawn: features, masks, views, confusion, architecture."""

from pathlib import Path

FEATURES, MAPS = (
    "features",
    "maps",
)  # folder within a Run's folder, and the folder of pictures in it


CONFUSION = f"{FEATURES}/confusion.npz"  # confusion matrix of the test


PREDICTIONS = "predictions/test.npz"  # of each test image; see `monitoring.predictions`


ARCHITECTURE = f"{FEATURES}/architecture.npz"  # blocks of the model
LAST_MASKS = "last.npz"  # beside the pictures of masks: arrays of the last epoch


def feature_file(epoch: int) -> str:
    """Return the file of an epoch's features, relative to the folder of a Run."""
    return f"{FEATURES}/epoch_{epoch:05d}.npz"


def mask_file(epoch: int) -> str:
    """Return the file of an epoch's masks of watched images, relative to the folder of a Run."""
    return f"{FEATURES}/masks_{epoch:05d}.npz"


def view_file(epoch: int) -> str:
    """Return the file of an epoch's views of training images, relative to the folder of a Run."""
    return f"{FEATURES}/views_{epoch:05d}.npz"


def kept_features(folder: Path) -> dict[int, Path]:
    """Return epoch → file of features, ascending. folder: `FEATURES` of a Run."""
    return _by_epoch(folder, "epoch")


def kept_masks(folder: Path) -> dict[int, Path]:
    """Return epoch → file of masks, ascending. folder: `FEATURES` of a Run."""
    return _by_epoch(folder, "masks")


def kept_views(folder: Path) -> dict[int, Path]:
    """Return epoch → file of views, ascending. folder: `FEATURES` of a Run."""
    return _by_epoch(folder, "views")


def epoch_files(folder: Path) -> list[Path]:
    """Return the files that are drawn epoch by epoch while a Run trains: masks and views. folder:
    `FEATURES` of a Run."""
    return [*kept_masks(folder).values(), *kept_views(folder).values()]


def _by_epoch(folder: Path, kind: str) -> dict[int, Path]:
    files = sorted(folder.glob(f"{kind}_*.npz"))
    return {int(path.stem.partition("_")[2]): path for path in files}
