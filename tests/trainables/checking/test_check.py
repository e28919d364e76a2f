"""A trainable that keeps the contract passes; what breaks it is said in words, with its line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from trainables.checking.check import check_trainable
from trainables.own_code import finder

GOOD = """
import torch.nn.functional as F
from torch import nn
from trainables.models.encoders import build_encoder
from trainables.models.modules import Model
from trainables.trainable import Trainable, classification_metrics, classification_sums
from trainables.training_config import TrainableConfig
from trainables.transforms.geometry import normalize


class Mine(Trainable):
    Config, FIGURES, SELECT = TrainableConfig, ("loss", "accuracy"), "val/accuracy"
    PREDICTS, NEEDS = "classes", "labels"

    def __init__(self, config, data):
        self.config = config
        encoder, self.width = build_encoder(config.backbone, config.small_input)
        self.model = Model(encoder, nn.Linear(self.width, len(data.classes)))

    def loss(self, model, batch):
        return F.cross_entropy(model(normalize(batch.images)).float(), batch.labels)

    def evaluate(self, batch):
        return classification_sums(self.model(self.shown(batch.images)), batch.labels)

    def metrics(self, sums):
        return classification_metrics(sums)


class Extra(Mine):
"""
BROKEN = [
    ("    def loss(self, model, batch):\n"
     "        return super().loss(model, batch) * len(batch.images)", "with one process and"),
    ("    steps = 0\n    def after_step(self, progress):\n        self.steps += 1\n"
     "    def loss(self, model, batch):\n"
     "        return super().loss(model, batch) * (1 + self.steps)", "ends with other weights"),
    ("    def evaluate(self, batch):\n        sums = super().evaluate(batch)\n"
     "        return {k: v.double() / max(1, len(batch.images)) for k, v in sums.items()}",
     "return sums, and divide in `metrics`"),
    ("    def metrics(self, sums):\n        return {'loss': 0.0, 'accuracy': 50.0}",
     "a metric in % is a share from 0 to 1"),
    ("    def metrics(self, sums):\n        return {'loss': 0.0}", "returns no accuracy"),
    ("    def loss(self, model, batch):\n        return super().loss(model, batch).view(1)",
     "must be a float32 scalar"),
    ("    def loss(self, model, batch):\n        raise KeyError('colour')", "loss raises KeyError"),
    ("    def __init__(self, config, data):\n        super().__init__(config, data)\n"
     "        self.width = 3", "correct self.width or the encoder"),
    ("    def __init__(self, config, data):\n        super().__init__(config, data)\n"
     "        self.model.spare = nn.Linear(2, 2)", "gives spare.weight, spare.bias no gradient"),
    ("    def set_training(self, training):\n        pass", "leaves no part of the model"),
]  # fmt: skip


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "zz_checked.py"
    finder.use({})


def check(module: Path, extra: str) -> tuple[list[str], list[str]]:
    module.write_text(GOOD + extra + "\n", encoding="utf-8")
    finder.use(finder.sources_in({"zz_checked": module}))
    told: list[str] = []
    return check_trainable("zz_checked:Extra", tell=told.append), told


def test_one_that_keeps_the_contract_passes_every_part(module: Path) -> None:
    faults, told = check(module, "    pass")
    assert faults == []
    assert len(told) == 6 and "bit for bit" in told[4] and "two processes" in told[5]


@pytest.mark.slow
@pytest.mark.parametrize(("extra", "said"), BROKEN)
def test_what_breaks_the_contract_is_said_in_words(module: Path, extra: str, said: str) -> None:
    faults, _ = check(module, extra)
    assert any(said in line for line in faults), faults
    assert all("\n" not in line for line in faults)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [("classify", {}), ("byol", {"lr": 1.0e-4}), ("rotation", {})],  # byol collapses at 0.01
)
def test_those_of_this_package_keep_the_contract(name: str, settings: dict[str, float]) -> None:
    assert check_trainable(name, settings) == []
