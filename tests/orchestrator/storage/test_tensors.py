"""What is saved comes back, executes nothing, and a full disk is an OSError."""

import errno
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.storage.manifest import describe
from orchestrator.storage.tensors import load, save, save_arrays


def test_what_is_saved_comes_back(tmp_path: Path):
    value = {"weight": torch.arange(6.0).view(2, 3), "state": {0: {"step": torch.tensor(3)}}}
    assert save(value, tmp_path / "a.pt") == describe(tmp_path / "a.pt")
    found = load(tmp_path / "a.pt")
    assert torch.equal(found["weight"], value["weight"])
    assert found["state"][0]["step"] == 3


class Shell:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_in_a_file_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture):
    torch.save({"weight": Shell()}, tmp_path / "a.pt")
    with pytest.raises(pickle.UnpicklingError):
        load(tmp_path / "a.pt")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("write", [save, save_arrays])
def test_a_disk_that_takes_no_more_is_an_oserror(tmp_path: Path, write):
    value = {"weight": torch.zeros(100_000) if write is save else np.zeros(100_000)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            write(value, tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
