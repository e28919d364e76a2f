"""Checks that two processes train as one does: two gloo ranks on this machine.

python -m trainables.checking.ranks FOLDER RANK   (one of the two; started by `check_ranks`)
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import trainables
from trainables.checking.faults import Broken, doing, require
from trainables.config import as_plain
from trainables.engine.checkpoints import InMemory
from trainables.engine.loop import Options, Training, train
from trainables.loading.image_table import ImageTable, open_table
from trainables.numerics.distributed import World
from trainables.own_code import finder
from trainables.tasks.registry import TRAINABLES
from trainables.trainable import Trainable
from trainables.training_config import TrainableConfig

_RANKS = 2
_SECONDS = 300.0
_CLOSE = 2e-2  # relative, of a loss after two epochs: sums are added in another order
_SPEC = "ranks.json"


def check_ranks(
    name: str, kind: type[Trainable], config: TrainableConfig, table: ImageTable, folder: Path
) -> str:
    """Train two epochs on two ranks, and compare them with each other and with one process.

    name: `module:Name`; folder: holds the decoded images, as `<fingerprint>`.
    """
    config = config.model_copy(update={"epochs": 1})
    with doing("training"):
        alone = Training(kind, config, table, InMemory(), Options())
        train(alone, lambda figures: None)
    sources = {n: [s.file, s.text.decode(), s.folder] for n, s in finder.used().items()}
    spec = {"name": name, "config": as_plain(config), "table": table.fingerprint, "own": sources}
    (folder / _SPEC).write_text(json.dumps(spec), encoding="utf-8")
    _run(folder)
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(_RANKS))
    unlike = [
        n for n in first["weights"] if not torch.equal(first["weights"][n], second["weights"][n])
    ]
    require(
        not unlike,
        f"two processes end with different weights ({unlike[:1]}): what changes the model outside "
        "of the gradient must be the same on every rank (`after_step`)",
    )
    here, there = alone.history[-1]["train/loss"], first["history"][-1]["train/loss"]
    require(
        abs(here - there) <= _CLOSE * max(abs(here), 1e-3),
        f"train/loss is {here:.4g} with one process and {there:.4g} with two: return the mean over "
        "the batch in `loss`, and draw with batch.uniform(n)",
    )
    return f"two processes: train/loss {there:.6g}, with one {here:.6g}"


def _run(folder: Path) -> None:
    """Run the two ranks. Raises Broken where one fails or they wait for each other for ever."""
    root = str(Path(trainables.__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    (folder / "meet").unlink(missing_ok=True)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "trainables.checking.ranks", str(folder), str(rank)],
            env=os.environ | {"PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(_RANKS)
    ]
    said = []
    try:
        for process in running:
            said.append(process.communicate(timeout=_SECONDS)[1])
    except subprocess.TimeoutExpired as error:
        raise Broken(
            f"two processes wait for each other for more than {_SECONDS:.0f} s: every rank must "
            "do the same collective calls"
        ) from error
    finally:
        for process in running:
            process.kill()
            process.wait()
    for process, text in zip(running, said, strict=True):
        if process.returncode:
            lines = [line for line in text.splitlines() if line.strip()]
            raise Broken(f"with two processes training fails: {lines[-1] if lines else 'no word'}")


def main(folder: Path, rank: int) -> None:
    """Train on one rank, and save history and weights."""
    torch.set_num_threads(1)
    spec: Mapping[str, Any] = json.loads((folder / _SPEC).read_text(encoding="utf-8"))
    own = {n: finder.Source(f, text.encode(), place) for n, (f, text, place) in spec["own"].items()}
    finder.use(own)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=_RANKS)
    kind = TRAINABLES[spec["name"]]
    config = kind.Config.model_validate(spec["config"])
    world = World(rank, _RANKS, torch.device("cpu"))
    table = open_table(folder / spec["table"])
    try:
        with doing("training"):
            training = Training(kind, config, table, InMemory(), Options(0, world))
            train(training, lambda figures: None)
    except Broken as error:
        raise SystemExit(str(error)) from error
    state = training.trainable.model.state_dict()
    torch.save({"history": training.history, "weights": state}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
