"""Operations equal torchvision's on uint8, and policies draw each image's own from its uniforms."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandAugment, TrivialAugmentWide
from torchvision.transforms.autoaugment import _apply_op

from trainables.transforms.policies import BINS, POLICIES, POLICY_DRAWS, apply_policy

NAMES = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
    "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
)  # fmt: skip
SIDE = 24
THEIRS = {
    "randaugment": RandAugment()._augmentation_space(BINS, (SIDE, SIDE)),
    "trivialaugment": TrivialAugmentWide()._augmentation_space(BINS),
}


def images(count: int = 4, side: int = SIDE) -> Tensor:
    """Noise of few and of many levels, a flat image, and a ramp."""
    generator = torch.Generator().manual_seed(0)
    made = torch.randint(20, 200, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    made[0] //= 32
    made[1] = torch.linspace(0, 255, side).byte()
    made[2, 1] = 7
    return made


def draw(number: int, magnitude: int, negative: bool) -> list[float]:
    return [(number + 0.5) / len(NAMES), (magnitude + 0.5) / BINS, 0.1 if negative else 0.9]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("negative", [False, True])
def test_an_operation_is_torchvisions(
    policy: str, name: str, magnitude: int, negative: bool
) -> None:
    given = images()
    values, signed = THEIRS[policy][name]
    value = float(values[magnitude]) if values.ndim else 0.0
    value = -value if signed and negative else value
    wanted = _apply_op(given, name, value, InterpolationMode.NEAREST, fill=None)
    uniforms = torch.tensor([draw(NAMES.index(name), magnitude, negative)] * len(given))
    found = apply_policy(given.float(), uniforms, policy, None)
    assert torch.equal(found, found.round())
    off = (found - wanted.float()).abs()
    if name.startswith(("Shear", "Rotate")):  # a nearest pixel may lie half way between two
        assert float((off > 0).float().mean()) < 0.01
    else:
        assert float(off.max()) <= 1 and float((off > 0).float().mean()) < 0.002


@pytest.mark.parametrize("policy", POLICIES)
def test_each_image_has_operations_of_its_own_in_any_batch(policy: str) -> None:
    given = images()[3:].expand(40, -1, -1, -1).float()
    uniforms = torch.rand(40, 2 * POLICY_DRAWS, generator=torch.Generator().manual_seed(1))
    together = apply_policy(given, uniforms, policy, 9)
    alone = torch.cat([apply_policy(given[:1], row[None], policy, 9) for row in uniforms])
    assert torch.equal(together, alone)
    assert len(together.flatten(1).unique(dim=0)) > 20
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(apply_policy(given, uniforms, policy, 9), together)


def test_a_second_operation_works_on_what_the_first_has_made() -> None:
    given = images().float()
    first, second = (torch.tensor([draw(number, 9, False)] * 4) for number in (5, 10))
    both = apply_policy(given, torch.cat([first, second], 1), "randaugment", 20)
    turned = apply_policy(given, first, "randaugment", 20)
    assert torch.equal(both, apply_policy(turned, second, "randaugment", 20))


def test_all_operations_are_as_likely() -> None:
    ramp = torch.linspace(0, 255, SIDE).round().expand(1, 3, SIDE, SIDE).contiguous()
    uniforms = torch.rand(1400, POLICY_DRAWS, generator=torch.Generator().manual_seed(2))
    made = apply_policy(ramp.expand(1400, -1, -1, -1), uniforms, "randaugment", 30)
    same = (made == ramp).flatten(1).all(1).float().mean()
    # identity, and of a ramp from 0 to 255 without color: color, autocontrast and equalize
    assert 3 / 14 - 0.05 < same < 4 / 14 + 0.05
