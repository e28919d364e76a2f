"""Weights are checked without torch as torch would check them, and nothing in a file is run."""

import argparse
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from trainables.models import state_file, weights
from trainables.models.encoder_shapes import resnet_shapes, vgg_shapes
from trainables.models.encoders import build_encoder
from trainables.models.matching import WeightsError
from trainables.models.segmentation import VggEncoder
from trainables.models.state_file import NotUnderstood, check_file, read_tensors

State = dict[str, Any]
SHAPES = resnet_shapes("resnet10_slim", True)


@pytest.fixture
def state() -> State:
    torch.manual_seed(0)
    return dict(build_encoder("resnet10_slim", small_input=True)[0].state_dict())


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
     torch.int16, torch.int8, torch.uint8, torch.bool],
)  # fmt: skip
@pytest.mark.parametrize(
    "part", [lambda t: t, lambda t: t[1:, ::2], lambda t: t.t(), lambda t: t[0, 0], lambda t: t[:0]]
)
def test_numbers_are_those_that_torch_reads(
    tmp_path: Path, dtype: torch.dtype, part: Callable[[Tensor], Tensor]
) -> None:
    whole = part((torch.arange(12.0).view(3, 4) - 3).to(dtype))
    torch.save({"w": whole, "p": torch.nn.Parameter(torch.ones(2))}, tmp_path / "a.pt")
    read = read_tensors(tmp_path / "a.pt")
    assert read["w"].shape == tuple(whole.shape)
    assert f"torch.{read['w'].dtype}" == str(whole.dtype)
    expected = whole.contiguous()
    if dtype == torch.bfloat16:
        expected = expected.view(torch.int16)
    found = read["w"].read()
    if dtype == torch.bfloat16:
        found = found.view(np.int16)
    assert np.array_equal(found.reshape(-1), expected.numpy().reshape(-1))
    assert read["p"].shape == (2,)


def same_verdict(path: Path, shapes: state_file.Shapes) -> str:
    """What both checks say, which must be the same; empty where the file fits."""
    said = []
    for check in (check_file, weights.check_file):
        try:
            check(path, shapes)
            said.append("")
        except WeightsError as error:
            said.append(str(error))
    assert said[0] == said[1]
    return said[0]


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s, ""),
        (lambda s: {"state_dict": prefixed("module.", s), "epoch": 3, "lr": 0.1}, ""),
        (lambda s: {"model": prefixed("encoder_q.", s) | prefixed("encoder_k.", s)}, ""),
        (lambda s: {n: v for n, v in s.items() if "num_batches" not in n}, ""),
        (lambda s: s | {"fc.weight": torch.zeros(3, 128)}, ""),
        (lambda s: {n: v.half() if v.is_floating_point() else v for n, v in s.items()}, ""),
        (lambda s: {n: v.bfloat16() if v.is_floating_point() else v for n, v in s.items()}, ""),
        (lambda s: prefixed("a.", s) | prefixed("b.", s), "hold 2 networks"),
        (lambda s: s | {"conv1.weight": torch.zeros(64, 3, 7, 7)}, "must be (64, 3, 3, 3)"),
        (lambda s: s | {"layer9.weight": torch.zeros(1)}, "unknown layer9.weight"),
        (lambda s: {n: v for n, v in s.items() if n != "bn1.bias"}, "missing bn1.bias"),
        (lambda s: s | {"bn1.bias": torch.zeros(64).fill_(torch.nan)}, "has 64 values that are"),
        (lambda s: s | {"bn1.bias": torch.ones(64).double() * 1e300}, "has 64 values"),
        (lambda s: s | {"bn1.bias": torch.full((64,), torch.inf).bfloat16()}, "has 64 values"),
        (lambda s: s | {"bn1.bias": torch.zeros(64).long()}, "is torch.int64, must be floating"),
        (lambda s: s | {"bn1.bias": torch.zeros(64).to_sparse()}, "is sparse or quantized"),
        (lambda s: s | {"bn1.bias": torch.zeros(64).cfloat()}, "is torch.complex64, must be"),
        (lambda s: {}, "holds no state dict"),
        (lambda s: {"epoch": 3, "optimizer": {"lr": 0.1}}, "holds no state dict, only epoch"),
        (lambda s: [torch.zeros(1)], "holds no state dict"),
    ],
)
def test_both_checks_say_the_same_of_a_file(
    tmp_path: Path, state: State, change: Callable[[State], Any], words: str
) -> None:
    torch.save(change(state), tmp_path / "a.pt")
    verdict = same_verdict(tmp_path / "a.pt", SHAPES)
    assert words in verdict and bool(words) == bool(verdict)


@pytest.mark.parametrize("form", ["features.0.weight", "0.weight", "model.features.0.weight"])
def test_vggs_convolutions_alone_are_enough(tmp_path: Path, form: str) -> None:
    stack = VggEncoder(8).features.state_dict()
    torch.save({form.replace("0.weight", n): v for n, v in stack.items()}, tmp_path / "vgg.pth")
    assert same_verdict(tmp_path / "vgg.pth", vgg_shapes(8)) == ""


def test_vggs_convolutions_in_the_order_of_keras_are_refused_with_the_cure(tmp_path: Path) -> None:
    stack = VggEncoder(8).features.state_dict()
    keras = {n: v.permute(2, 3, 1, 0) if v.ndim == 4 else v for n, v in stack.items()}
    torch.save(keras, tmp_path / "keras.pth")
    verdict = same_verdict(tmp_path / "keras.pth", vgg_shapes(8))
    assert "(13 errors): 0.weight is" not in verdict  # names are those of the encoder
    assert "features.0.weight is (3, 3, 3, 64), must be (64, 3, 3, 3); " in verdict
    assert "; its kernels lie as Keras has them" in verdict and "by (3, 2, 0, 1)" in verdict
    back = {n: v.permute(3, 2, 0, 1) if v.ndim == 4 else v for n, v in keras.items()}
    torch.save(back, tmp_path / "torch.pth")
    assert same_verdict(tmp_path / "torch.pth", vgg_shapes(8)) == ""
    said = check_file(tmp_path / "torch.pth", vgg_shapes(8))
    assert said == "convolutions alone, 4 tensors above them are random"
    assert weights.check_file(tmp_path / "torch.pth", vgg_shapes(8)) == said


def test_files_of_other_programs_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    said = same_verdict(tmp_path / "a.pt", SHAPES)
    assert "a.pt is no state-dict file (HDF5, as of Keras): " in said


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_safetensors_file_is_read_without_its_library(
    tmp_path: Path, state: State, dtype: torch.dtype
) -> None:
    path = tmp_path / "a.safetensors"
    given = {n: v.to(dtype) if v.is_floating_point() else v for n, v in state.items()}
    save_file(given, path, metadata={"format": "pt"})
    assert same_verdict(path, SHAPES) == ""
    loaded = weights.read_state_file(path)
    assert all(torch.equal(loaded[name], value) for name, value in given.items())
    save_file({**given, "conv1.weight": given["conv1.weight"] * float("nan")}, path)
    assert "conv1.weight has 1728 values that are not finite" in same_verdict(path, SHAPES)


def test_a_damaged_safetensors_file_is_refused(tmp_path: Path, state: State) -> None:
    path = tmp_path / "a.safetensors"
    save_file(state, path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    for damaged in (whole[:-4], whole[: length // 2], whole.replace(b'"F32"', b'"F99"', 1)):
        path.write_bytes(damaged)
        assert "is a damaged safetensors file" in same_verdict(path, SHAPES)
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert "a.safetensors holds no state dict" in same_verdict(path, SHAPES)


def test_objects_beside_the_tensors_are_named(tmp_path: Path, state: State) -> None:
    torch.save({"args": argparse.Namespace(lr=0.1), "state_dict": state}, tmp_path / "a.pth")
    said = same_verdict(tmp_path / "a.pth", SHAPES)
    assert "a.pth is no state-dict file (it holds objects beside tensors: argparse.Namesp" in said
    torch.save(torch.nn.Sequential(torch.nn.ReLU()), tmp_path / "whole.pt")
    assert "objects beside tensors: torch.nn.mod" in same_verdict(tmp_path / "whole.pt", SHAPES)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 no archive"])
def test_what_is_no_archive_is_refused_by_torch(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(NotUnderstood):
        read_tensors(tmp_path / "a.pt")
    assert "a.pt is no state-dict file" in same_verdict(tmp_path / "a.pt", SHAPES)


def test_a_file_of_older_versions_of_torch_is_read_by_torch(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert same_verdict(tmp_path / "a.pt", SHAPES) == ""


class Call:
    """A pickle that calls something when a careless reader opens it."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize(
    "trap",
    [
        lambda folder: Call(os.mkdir, str(folder)),
        lambda folder: Call(eval, f"__import__('os').mkdir({str(folder)!r})"),
        lambda folder: Call(getattr, "text", "upper"),
        lambda folder: Call(torch.zeros, 1),
    ],
)
def test_code_in_a_file_is_refused_and_not_run(
    tmp_path: Path, state: State, trap: Callable[[Path], Call]
) -> None:
    path, sprung = tmp_path / "trap.pt", tmp_path / "sprung"
    torch.save(state | {"w": trap(sprung)}, path)
    with pytest.raises(NotUnderstood, match="it names "):
        read_tensors(path)
    assert "trap.pt is no state-dict file" in same_verdict(path, SHAPES)
    assert not sprung.exists()


def test_a_pickle_cannot_change_what_reads_it(tmp_path: Path) -> None:
    """`BUILD` sets attributes of what a pickle has named."""
    torch.save({"w": torch.zeros(2)}, tmp_path / "a.pt")
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        attack = b"ctorch._utils\n" + name.encode() + b"\n}(X\x04\x00\x00\x00evilK\x01ub."
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr("a/data.pkl", attack)
        with pytest.raises(NotUnderstood):
            read_tensors(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("offset", "shape", "stride"), [(0, (3,), (1,)), (1, (2,), (1,)), (-1, (1,), (1,)),
                                    (0, (2,), (-1,)), (0, (2, 2), (1, 1))]
)  # fmt: skip
def test_a_tensor_beyond_its_storage_is_not_read(
    offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    tensor = state_file._Tensor()(("float32", lambda: np.zeros(2)), offset, shape, stride)
    with pytest.raises(NotUnderstood, match="larger than its storage"):
        tensor.read()
