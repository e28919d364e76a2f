"""Commands that only look load none of the large libraries: these cost most of their time."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from trainables.models.encoder_shapes import encoder_shapes
from trainables.models.encoders import build_encoder

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "torchvision", "mlflow", "ray", "sklearn", "scipy", "pandas", "pyarrow",
         "matplotlib", "optuna"}  # fmt: skip

# Runs a command, and names to standard error the large libraries that it has loaded, one a line.
SAYS_WHAT_IT_LOADED = f"""
import atexit, runpy, sys
heavy = {sorted(HEAVY)!r}
atexit.register(lambda: print(*(f"LOADED {{name}}" for name in heavy if name in sys.modules),
                              sep="\\n", file=sys.stderr))
runpy.run_module("orchestrator", run_name="__main__", alter_sys=True)
"""

FOLDER_STUDY = """
study: photographs
data: {{photos: {{type: image_folder, path: photos, size: 16{more}}}}}
stages: {{only: {{trainable: {trainable}, config: {{dataset: photos, batch_size: 4{config}}}}}}}
"""


def loaded_by(command: Sequence[str], folder: Path, status: int = 0) -> set[str]:
    """The large libraries that a command has loaded at its end.

    folder: where it works, and below which its home lies; status: the one that it must end with.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), "ORCHESTRATOR_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-c", SAYS_WHAT_IT_LOADED, *command],
        cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return {line.split()[1] for line in done.stderr.splitlines() if line.startswith("LOADED ")}


def write_studies(folder: Path) -> None:
    """Studies of a folder of photographs: a good one, and some that are refused."""
    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            color = (number, 100 if name == "cat" else 200, 0)
            Image.new("RGB", (20, 20), color).save(folder / f"photos/{name}/{number}.png")
    state = build_encoder("resnet10_slim", small_input=True)[0].state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, folder / "own.pth")
    torch.save({"a": torch.zeros(1)}, folder / "other.pth")
    flat = {k: torch.ones(()).expand(v) for k, v in encoder_shapes("vit_b_16", False).items()}
    torch.save(flat, folder / "vit.pth")
    weights = ", backbone: resnet10_slim, small_input: true, weights: "
    studies = {
        "good": ("classify", "", ""),
        "typo": ("clasify", "", ""),
        "unknown_key": ("classify", "", ", epocs: 3"),
        "no_data": ("classify", ", subfolder: gone", ""),
        "small_batch": ("classify", "", ", accumulate: 4"),
        "no_labels": ("segment", "", ", network: deeplabv3"),
        "no_weights": ("classify", "", ", weights: gone.pth"),
        "own_weights": ("classify", "", f"{weights}own.pth"),
        "vit_weights": ("rotation", "", ", backbone: vit_b_16, weights: vit.pth"),
        "other_weights": ("classify", "", f"{weights}other.pth"),
    }
    for name, (trainable, more, config) in studies.items():
        text = FOLDER_STUDY.format(trainable=trainable, more=more, config=config)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with studies."""
    made = tmp_path_factory.mktemp("light")
    write_studies(made)
    return made


# command → exit status. A command that asks a server needs a test of its own: see `loaded_by`.
COMMANDS = {
    "--help": 0,
    "submit --help": 0,
    "studies": 0,
    "describe": 0,
    "describe classify": 0,
    "describe --markdown": 0,
    "describe clasify": 2,
    "data": 0,
    "data digits": 0,
    "data good.yaml": 0,
    "data segmentation_digits": 0,
    "plan digits": 0,
    "plan byol_digits --json": 0,
    "plan search_digits": 0,
    "plan segmentation_digits": 0,
    "plan good.yaml": 0,
    "plan own_weights.yaml": 0,
    "plan vit_weights.yaml": 0,
    "plan gone": 2,
    **{
        f"plan {name}.yaml": 2
        for name in ("typo", "unknown_key", "no_data", "small_batch", "no_labels", "no_weights",
                     "other_weights")
    },
    "manifest docker": 0,
    "manifest kuberay digits": 0,
    "manifest slurm typo.yaml": 2,
    "plan digits --set stages.x.config.epochs=many": 2,
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_only_looks_loads_no_large_library(command: str, folder: Path) -> None:
    assert loaded_by(command.split(), folder, COMMANDS[command]) == set()


def test_a_library_that_is_loaded_would_be_seen(folder: Path) -> None:
    (folder / "old.pth").unlink(missing_ok=True)
    state = build_encoder("resnet10_slim", small_input=True)[0].state_dict()
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    text = (folder / "own_weights.yaml").read_text(encoding="utf-8")
    (folder / "old.yaml").write_text(text.replace("own.pth", "old.pth"), encoding="utf-8")
    assert loaded_by(["plan", "old.yaml"], folder) == {"torch"}
