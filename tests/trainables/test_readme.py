"""The examples of trainables/README.md run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trainables.data.datasets import DatasetConfig
from trainables.training_config import TrainableConfig

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```$",
    (ROOT / "trainables" / "README.md").read_text(encoding="utf-8"),
    flags=re.DOTALL | re.MULTILINE,
)


def run(code: str, folder: Path) -> list[str]:
    """Lines that a fresh Python prints which runs `code` in `folder`. Raises where it fails."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode().splitlines()


def defined(title: str) -> dict[str, Any]:
    """The names that the example with this docstring defines."""
    (code,) = [code for code in EXAMPLES if code.startswith(f'"""{title}')]
    names: dict[str, Any] = {}
    exec(compile(code, title, "exec"), names)
    return names


def test_the_first_example_trains_in_ten_lines_without_ray_and_mlflow(tmp_path: Path) -> None:
    assert len([line for line in EXAMPLES[0].splitlines() if line]) <= 10
    loaded = "import sys\nprint({'ray', 'mlflow', 'orchestrator'} & set(sys.modules))"
    shown, modules = run(EXAMPLES[0] + loaded, tmp_path)
    assert re.fullmatch(r"epoch [1-5]: accuracy 0\.\d\d", shown)
    assert float(shown[-4:]) > 0.3  # chance is 0.1
    assert modules == "set()"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_the_trainable_of_the_second_example_trains(tmp_path: Path) -> None:
    assert len([line for line in EXAMPLES[1].splitlines() if line]) <= 45
    (shown,) = run(EXAMPLES[1], tmp_path)
    assert re.fullmatch(r"\{'test/loss': \d+\.\d+, 'test/accuracy': [01]\.\d+\}", shown)


def test_the_data_set_type_reads_images_named_by_class(tmp_path: Path) -> None:
    for name in ("cat_1", "dog_1", "cat_2", "note"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.jpg")
    config = DatasetConfig(type="image_folder", path=str(tmp_path))
    source = defined("Images whose class")["read_prefixes"](config, None)
    assert source.classes == ("cat", "dog")
    assert source.names == ["cat_1.jpg", "cat_2.jpg", "dog_1.jpg"]
    assert source.labels.tolist() == [0, 0, 1] and list(source.parts) == ["train"]
    assert source.decode(0).size == (4, 4)


def test_the_optimizer_steps() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    build = defined("RMSprop")["rmsprop"]
    optimizer = build([{"params": [weight]}], TrainableConfig(dataset="d", lr=0.1))
    weight.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert (weight < 1).all()


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 1.0), (5.0, 0.5), (10.0, 0.0)])
def test_the_schedule_falls_along_a_line(progress: float, factor: float) -> None:
    linear = defined("Linear decay")["linear"]
    assert linear(progress, TrainableConfig(dataset="d", epochs=10)) == pytest.approx(factor)
