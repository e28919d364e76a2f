"""Precision follow from the configuration, the device and the size of the images."""

from typing import Any

import pytest
import torch

from trainables.numerics.precision import Precision, choose_precision
from trainables.training_config import TrainableConfig

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, params=[False, True], ids=["plain", "bfloat16"])
def capable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the CPU is one that multiplies bfloat16."""
    found = {"avx512_bf16": request.param, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    return bool(request.param)


def config(**settings: Any) -> TrainableConfig:
    return TrainableConfig.model_validate({"dataset": "target"} | settings)


@pytest.mark.parametrize(
    ("precision", "autocast"),
    [("float32", None), ("tf32", None), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
@pytest.mark.parametrize("side", [8, 64])
def test_a_precision_that_is_asked_for_is_taken(
    precision: str, autocast: torch.dtype | None, side: int
) -> None:
    assert choose_precision(config(precision=precision), CPU, side).autocast is autocast


@pytest.mark.parametrize("side", [8, 31, 32, 224])
def test_a_cpu_reduces_precision_where_it_gains(side: int, capable: bool) -> None:
    wanted = torch.bfloat16 if capable and side >= 32 else None
    assert choose_precision(config(), CPU, side).autocast is wanted


def test_a_torch_that_cannot_tell_what_the_cpu_does_means_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_precision(config(), CPU, 64).autocast is None


@pytest.mark.parametrize(("side", "last"), [(8, False), (31, False), (32, True), (224, True)])
@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_a_cpu_uses_channels_last_from_32_pixels(side: int, last: bool, precision: str) -> None:
    numerics = choose_precision(config(precision=precision), CPU, side)
    assert numerics.channels_last is last
    wanted = torch.channels_last if last else torch.contiguous_format
    assert numerics.memory_format is wanted


@pytest.mark.parametrize(("capability", "shown"), [((8, 0), "tf32"), ((7, 5), "float32")])
def test_tf32_is_named_where_the_hardware_has_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], shown: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    numerics = choose_precision(config(precision="tf32"), torch.device("cuda"), 64)
    assert numerics.autocast is None and str(numerics).startswith(f"{shown}, ")
    assert str(choose_precision(config(precision="tf32"), CPU, 64)).startswith("float32, ")


def test_the_default_is_auto() -> None:
    assert choose_precision(config(), CPU, 8) == Precision(None, torch.contiguous_format)


@pytest.mark.parametrize(
    ("precision", "side", "text"),
    [
        ("auto", 8, "float32, contiguous"),
        ("float32", 32, "float32, channels-last"),
        ("bfloat16", 8, "bfloat16, contiguous"),
        ("bfloat16", 64, "bfloat16, channels-last"),
    ],
)
def test_numerics_say_what_they_are(precision: str, side: int, text: str) -> None:
    assert str(choose_precision(config(precision=precision), CPU, side)) == text


def test_bfloat16_on_request_is_what_a_model_then_runs_in() -> None:
    numerics = choose_precision(config(precision="bfloat16"), CPU, 8)
    with torch.autocast("cpu", dtype=numerics.autocast):
        assert torch.nn.Linear(4, 2)(torch.zeros(1, 4)).dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_modern_gpu_runs_in_bfloat16_and_channels_last() -> None:
    device = torch.device("cuda")
    modern = torch.cuda.get_device_capability(device) >= (8, 0)
    numerics = choose_precision(config(), device, 8)
    assert (numerics.autocast is torch.bfloat16, numerics.channels_last) == (modern, modern)
    assert choose_precision(config(precision="float32"), device, 8).autocast is None
