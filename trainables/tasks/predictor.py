"""Predicts with a checkpoint: class names and probabilities, or masks. The MLflow model loads this
file; it needs neither Ray nor MLflow."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas
import torch
from PIL import Image
from torch import Tensor

from trainables.backbones import code_of
from trainables.config import as_plain
from trainables.dataset import DataInfo, Pixels
from trainables.loading.image_table import ImageTable
from trainables.own_code.carried import carried_sources, use_carried
from trainables.pixels.bands import Reading, square_bands
from trainables.pixels.images import open_bands, open_image, square
from trainables.pixels.windows import Places, windows
from trainables.tasks.registry import TRAINABLES
from trainables.training_config import TrainableConfig, with_present_keys
from trainables.transforms.geometry import normalize
from trainables.transforms.windows import joined

Numbers = npt.NDArray[Any]
MODEL = "model.json"  # beside weights.pt in a checkpoint's folder


def describe_model(trainable: str, config: TrainableConfig, table: ImageTable) -> dict[str, Any]:
    """Return what is needed to build the model again, as JSON-ready data, with the own code and the
    libraries beside torch that it is built by."""
    code = carried_sources((trainable, config.backbone))
    libraries = [library.replace(" ", "==") for library in code_of(config.backbone)[1]]
    needed = {"code": code, "requirements": libraries}
    return {key: value for key, value in needed.items() if value} | {
        "trainable": trainable,
        "config": as_plain(config),
        "classes": list(table.classes),
        "colours": [list(colour) for colour in table.colours],
        "size": table.size,
        "reading": dict(table.reading),
        "mean": list(table.mean),
        "std": list(table.std),
    }


class Predictor:
    """Holds a trained model. folder: has `model.json` and `weights.pt`; device: such as `cuda`."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        described = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        use_carried(described.get("code", {}))
        kind = TRAINABLES[described["trainable"]]
        config = kind.Config.model_validate(with_present_keys(described["config"]))
        self.classes: list[str] = described["classes"]
        self.colours: list[list[int]] = described.get("colours", [])  # absent in older models
        self.size = int(described["size"])
        self.reading = Reading.of(described.get("reading", {}))
        self.mean, self.std = (
            np.array(described.get(name, ()), dtype=np.float32) for name in ("mean", "std")
        )
        info = DataInfo(tuple(self.classes), self.size, self.reading.channels)
        self.trainable = kind(config, info)
        weights = torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)
        self.trainable.model.load_state_dict(weights)
        self.trainable.set_training(False)
        self.trainable.model.to(device).eval()
        self.device = device

    def open(self, path: Path) -> Numbers:
        """Open an image as those that it was trained on. Raises UnreadableImage, OSError."""
        if self.reading.channels == 3:
            return np.asarray(open_image(path, self.reading))
        return open_bands(path, self.reading)

    def _checked(self, given: Any) -> Numbers:
        """Return images as (B, H, W, channels): uint8 RGB, or normalized numbers."""
        images, channels = np.asarray(given), self.reading.channels
        images = images[None] if images.ndim == 3 else images
        if channels != 3 and images.ndim == 4 and images.dtype.kind in "buif":
            if images.shape[-1] == channels:
                return np.asarray((images.astype(np.float32) - self.mean) / self.std)
        elif images.ndim == 4 and images.shape[-1] == channels and images.dtype == np.uint8:
            return images
        wanted = "uint8" if channels == 3 else "numbers"
        raise ValueError(
            f"images must be (B, H, W, {channels}) {wanted}, not {images.shape} {images.dtype}"
        )


class Classifier(Predictor):
    """Predicts which class an image shows."""

    @torch.inference_mode()
    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pandas.DataFrame:
        """Classify images: (B, H, W, 3) uint8 in [0, 255], any H and W, or one (H, W, 3). A model
        of other channels takes their numbers as they are in files.

        Returns a row per image: `class`, `probability`, and one `p(<class>)` per class. Raises
        ValueError on another shape or type.
        """
        fitted = np.stack([self._square(image) for image in self._checked(model_input)])
        logits = self.trainable.model(self.trainable.shown(_first_channels(fitted, self.device)))
        probabilities = logits.float().softmax(1).cpu().numpy()
        best = probabilities.argmax(1)
        columns: dict[str, Any] = {
            "class": [self.classes[i] for i in best],
            "probability": probabilities.max(1),
        }
        columns |= {f"p({name})": probabilities[:, i] for i, name in enumerate(self.classes)}
        return pandas.DataFrame(columns)

    def _square(self, image: Numbers) -> Numbers:
        if image.dtype == np.uint8:
            return np.asarray(square(Image.fromarray(image), self.size))
        return square_bands(image, self.size)


class Segmenter(Predictor):
    """Predicts which class every pixel shows."""

    @torch.inference_mode()
    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Pixels:
        """Segment images: (B, H, W, 3) uint8 in [0, 255], any H and W, or one (H, W, 3). A model of
        other channels takes their numbers as they are in files.

        Returns (B, H, W) uint8: places in `classes`. The image is not resized: a thing must have
        about as many px as in the training images. One that is larger than the model's `size` is
        segmented in windows that overlap, as in the test. Raises ValueError on another shape or
        type.
        """
        return np.stack([self._mask(image) for image in self._checked(model_input)])

    def _mask(self, image: Numbers) -> Pixels:
        height, width = image.shape[:2]
        if max(height, width) <= self.size:
            scores = self._scores(image[None])
        else:
            places = windows((width, height), self.size)
            scores = joined(self._windows(image, places), places)
        mask = scores[0, :, :height, :width].argmax(0)
        return np.asarray(mask.to(torch.uint8).cpu())

    def _windows(self, image: Numbers, places: Places) -> Iterator[Tensor]:
        """Compute logits of windows, (n, K, size, size) on the CPU, as many at once as the memory
        holds. Raises torch.OutOfMemoryError where it holds none."""
        at_once, done = self.trainable.evaluated_at_once(self.size), 0
        while done < len(places):
            some = places[done : done + at_once]
            try:
                scores = self._scores(np.stack([self._window(image, place) for place in some]))
            except torch.OutOfMemoryError:
                if at_once == 1:
                    raise
                at_once = at_once // 2
                continue
            yield scores.float().cpu()
            done += len(some)

    def _window(self, image: Numbers, place: tuple[int, int]) -> Numbers:
        """Cut a window out; beside the image it is black, or the mean, as in training."""
        top, left = place
        part = image[top : top + self.size, left : left + self.size]
        missing = [(0, self.size - length) for length in part.shape[:2]]
        return np.pad(part, [*missing, (0, 0)])

    def _scores(self, images: Numbers) -> Tensor:
        given = normalize(_first_channels(images, self.device))
        given = normalize(_first_channels(images, self.device))
        scores: Tensor = self.trainable.model(given)["out"]
        return scores


def load(folder: Path, device: str = "cpu") -> Classifier | Segmenter | None:
    """Return what predicts with a checkpoint's files; None where the model was for pretraining."""
    described = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    use_carried(described.get("code", {}))
    kind = TRAINABLES[described["trainable"]]
    if kind.PREDICTS is None:
        return None
    return (Segmenter if kind.PREDICTS == "masks" else Classifier)(folder, device)


def _first_channels(images: Numbers, device: str) -> Tensor:
    """Move channels first, as in the decoded cache: (B, H, W, 3) → (B, 3, H, W)."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).to(device)


def _load_pyfunc(path: str) -> Classifier | Segmenter | None:
    """Load a model: the entry point of MLflow's `loader_module`."""
    return load(Path(path))
