"""What a schema says of a trainable or producer is what the code of its name is."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from trainables.dataset import DataInfo
from trainables.schemas.registry import PRODUCER_SCHEMAS, TRAINABLE_SCHEMAS
from trainables.tasks.registry import PRODUCERS, TRAINABLES


@pytest.mark.parametrize("name", TRAINABLE_SCHEMAS)
def test_the_code_of_a_trainable_has_its_schema_and_changes_none_of_it(name: str) -> None:
    schema, code = TRAINABLE_SCHEMAS[name], TRAINABLES[name]
    assert issubclass(code, schema)
    for said in ("Config", "FIGURES", "SELECT", "PREDICTS", "NEEDS", "PROBED"):
        assert getattr(code, said) == getattr(schema, said)
    assert not {"check", "select", "encoder_shapes"} & vars(code).keys()


@pytest.mark.parametrize("name", PRODUCER_SCHEMAS)
def test_the_code_of_a_producer_has_its_schema_and_changes_none_of_it(name: str) -> None:
    schema, code = PRODUCER_SCHEMAS[name], PRODUCERS[name]
    assert issubclass(code, schema)
    for said in ("Config", "FIGURES", "FOLDER"):
        assert getattr(code, said) == getattr(schema, said)
    assert not {"check", "default_weights"} & vars(code).keys()


def configurations(name: str) -> Iterator[Any]:
    """Configurations of a trainable with every encoder that it may have."""
    if name == "segment":
        choices = [
            {"network": "deeplabv3", "backbone": b}
            for b in ("resnet50", "resnet50_slim", "resnet34")
        ] + [
            {"network": "fcn32s", "backbone": backbone, "hidden": hidden}
            for backbone in ("vgg16", "vgg16_slim")
            for hidden in (8, 24)
        ]
    else:
        backbones = ("resnet18", "resnet50", "resnet10_slim")
        choices = [{"backbone": b, "small_input": s} for b in backbones for s in (False, True)]
    for choice in choices:
        yield TRAINABLES[name].Config.model_validate({"dataset": "d", **choice})


@pytest.mark.parametrize("channels", [3, 5])
@pytest.mark.parametrize("name", TRAINABLES)
def test_the_tensors_of_an_encoder_are_those_that_its_schema_says(name: str, channels: int) -> None:
    info = DataInfo(("a", "b"), 64, channels)
    for config in configurations(name):
        with torch.device("meta"):
            encoder = TRAINABLES[name](config, info).model.encoder
        built = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
        said = TRAINABLE_SCHEMAS[name].encoder_shapes(config, info)
        assert list(said.items()) == list(built.items())
