"""Tests that float32 means float32 on a GPU. The flags can be read without one."""

import pytest
import torch

from trainables.numerics.tf32 import allow_tf32


@pytest.fixture(autouse=True)
def restored():
    yield
    allow_tf32("auto")


def test_float32_forbids_tf32_tf32_allows_it_and_others_keep_torchs_defaults() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    wanted = {
        "float32": (False, False), "tf32": (True, True),
        "auto": (True, False), "bfloat16": (True, False),
    }  # fmt: skip
    for precision, (convolutions, products) in wanted.items():
        allow_tf32(precision)
        assert torch.backends.cudnn.allow_tf32 is convolutions
        assert torch.backends.cuda.matmul.allow_tf32 is products
    assert before == (True, False), "torch's defaults have changed"
