"""Predicts with a checkpoint: class names and probabilities, or masks. The MLflow model loads this
file; it needs neither Ray nor MLflow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from PIL import Image
from torch import Tensor

from trainables.config import as_plain
from trainables.dataset import DataInfo, Pixels
from trainables.loading.image_table import ImageTable
from trainables.pixels.images import square
from trainables.tasks.registry import TRAINABLES
from trainables.training_config import TrainableConfig, with_present_keys
from trainables.transforms.geometry import normalize

MODEL = "model.json"  # beside weights.pt in a checkpoint's folder


def describe_model(trainable: str, config: TrainableConfig, table: ImageTable) -> dict[str, Any]:
    """Return what is needed to build the model again, as JSON-ready data."""
    return {
        "trainable": trainable,
        "config": as_plain(config),
        "classes": list(table.classes),
        "colours": [list(colour) for colour in table.colours],
        "size": table.size,
    }


class Predictor:
    """Holds a trained model on the CPU. folder: has `model.json` and `weights.pt`."""

    def __init__(self, folder: Path) -> None:
        described = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        kind = TRAINABLES[described["trainable"]]
        config = kind.Config.model_validate(with_present_keys(described["config"]))
        self.classes: list[str] = described["classes"]
        self.colours: list[list[int]] = described.get("colours", [])  # absent in older models
        self.size = int(described["size"])
        self.trainable = kind(config, DataInfo(tuple(self.classes), self.size))
        weights = torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)
        self.trainable.model.load_state_dict(weights)
        self.trainable.set_training(False)
        self.trainable.model.eval()


class Classifier(Predictor):
    """Predicts which class an image shows."""

    @torch.inference_mode()
    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pandas.DataFrame:
        """Classify images: (B, H, W, 3) uint8 in [0, 255], any H and W, or one (H, W, 3).

        Returns a row per image: `class`, `probability`, and one `p(<class>)` per class. Raises
        ValueError on another shape or type.
        """
        images = _checked(model_input)
        fitted = np.stack([np.asarray(square(Image.fromarray(i), self.size)) for i in images])
        logits = self.trainable.model(normalize(_first_channels(fitted)))
        probabilities = logits.float().softmax(1).numpy()
        best = probabilities.argmax(1)
        columns: dict[str, Any] = {
            "class": [self.classes[i] for i in best],
            "probability": probabilities.max(1),
        }
        columns |= {f"p({name})": probabilities[:, i] for i, name in enumerate(self.classes)}
        return pandas.DataFrame(columns)


class Segmenter(Predictor):
    """Predicts which class every pixel shows."""

    @torch.inference_mode()
    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Pixels:
        """Segment images: (B, H, W, 3) uint8 in [0, 255], any H and W, or one (H, W, 3).

        Returns (B, H, W) uint8: places in `classes`. The image is not resized: a thing must have
        about as many px as in the training images. Raises ValueError on another
        shape or type.
        """
        return np.stack([self._mask(image) for image in _checked(model_input)])

    def _mask(self, image: Pixels) -> Pixels:
        scores = self.trainable.model(normalize(_first_channels(image[None])))["out"]
        return np.asarray(scores[0].argmax(0).to(torch.uint8))


def load(folder: Path) -> Classifier | Segmenter | None:
    """Return what predicts with a checkpoint's files; None where the model was for pretraining."""
    kind = TRAINABLES[json.loads((folder / MODEL).read_text(encoding="utf-8"))["trainable"]]
    if kind.PREDICTS is None:
        return None
    return Segmenter(folder) if kind.PREDICTS == "masks" else Classifier(folder)


def _checked(given: Any) -> Pixels:
    images = np.asarray(given)
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be (B, H, W, 3) uint8, not {images.shape} {images.dtype}")
    return images


def _first_channels(images: Pixels) -> Tensor:
    """Move channels first, as in the decoded cache: (B, H, W, 3) → (B, 3, H, W)."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2)


def _load_pyfunc(path: str) -> Classifier | Segmenter | None:
    """Load a model: the entry point of MLflow's `loader_module`."""
    return load(Path(path))
