"""Precision and memory format by hardware: rules from measurements, the same on every rank."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from trainables.training_config import TrainableConfig

Transform = TypeVar("Transform", bound=Callable[..., Any])

_LARGE = 32  # px from which a CPU gains


@dataclass(frozen=True)
class Precision:
    """How a model is run: `autocast` is None for plain float32."""

    autocast: torch.dtype | None
    memory_format: torch.memory_format

    def __str__(self) -> str:
        kind = "float32" if self.autocast is None else str(self.autocast).removeprefix("torch.")
        return f"{kind}, {'channels-last' if self.channels_last else 'contiguous'}"

    def context(self, device: torch.device) -> AbstractContextManager[Any]:
        """Within it, a model runs in the reduced precision, if there is one."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.autocast)

    @property
    def channels_last(self) -> bool:
        return self.memory_format is torch.channels_last


def choose(config: TrainableConfig, device: torch.device, side: int) -> Precision:
    """Precision for images of `side` px.

    CPU: bfloat16 autocast is 20-30 times slower than float32 where AVX512-BF16 and AMX are missing.
    Where AVX512-BF16 is there, ResNet18 trains, 2 cores (AMD EPYC), n = 5, 1.87 times as fast at
    32 px with small_input, 1.34 with ImageNet's, 1.60 at 64 and at 96 px; ResNet50 1.44 at 64.
    Channels-last, ResNet18, 2 cores, n = 5: 1.06 times the speed at 32 px, 1.09 at 96 px, 0.79 at
    8 px. GPU: bfloat16 and channels-last from compute capability 8.0 (tensor cores for it) on.
    """
    modern = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    large = device.type == "cpu" and side >= _LARGE
    gains = modern or (large and multiplies_bfloat16())
    reduced = gains if config.precision == "auto" else config.precision == "bfloat16"
    last = modern or large
    return Precision(
        torch.bfloat16 if reduced else None,
        torch.channels_last if last else torch.contiguous_format,
    )


def exact(transform: Transform) -> Transform:
    """A transform of a batch of images that stays in float32 within `Precision.context`: autocast
    would round a crop's coordinates (`affine_grid` is a matrix product) and a blur's colours to
    eight bits."""

    @wraps(transform)
    def unrounded(images: Tensor, *rest: Any) -> Any:
        with torch.autocast(images.device.type, enabled=False):
            return transform(images, *rest)

    return cast(Transform, unrounded)


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """float32 (N,), made once a device: a tensor made of Python's numbers in every step would stop
    a GPU until it has done all that it was given. Nobody may write to it."""
    with torch.inference_mode(False):  # what is made in there knows no gradient for ever
        return torch.tensor(values, device=device)


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 (AVX512-BF16 or AMX), and torch can tell."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # of newer torch
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
