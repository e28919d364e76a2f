"""Tests that float32 means float32 on a GPU. The flags can be read without one."""

import pytest
import torch

from trainables.numerics.tf32 import allow_tf32


@pytest.fixture(autouse=True)
def restored():
    yield
    allow_tf32("auto")


def test_float32_forbids_tf32_and_others_keep_torchs_defaults() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    for precision, convolutions in (("float32", False), ("auto", True), ("bfloat16", True)):
        allow_tf32(precision)
        assert torch.backends.cudnn.allow_tf32 is convolutions
        assert torch.backends.cuda.matmul.allow_tf32 is False
    assert before == (True, False), "torch's defaults have changed"
