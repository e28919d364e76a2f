"""Does training slow down while MLflow is away, and is anything missing afterwards?

    python -m tests.benchmarks.mlflow_away

One Run on all CPUs. Blocks of half a minute in which the MLflow server is there alternate with
blocks in which it is frozen, then with blocks in which it is dead, since a machine's speed drifts.
Prints images/s of the epochs within each kind of block, and the ratios of neighbours.
"""

import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.storage.files import read_json
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from tests.integration.command import Command

EPOCHS, PAIRS, BLOCK_SECONDS = 10_000, 4, 30.0
STUDY = f"""
study: away
question: Does training wait for MLflow?
data: {{digits: {{type: digits}}}}
stages:
  only: {{trainable: rotation, config: {{dataset: digits, epochs: {EPOCHS}, lr: 0.01}}}}
"""
Block = tuple[int, int]  # epochs wholly within: first, last


def main() -> None:
    command = Command(Path(tempfile.mkdtemp(prefix="away-")))
    home, file = Home(command.home).create(), command.folder / "away.yaml"
    file.write_text(STUDY)
    submit = command.start("submit", str(file))
    store = Store(home.store)
    while not [key for key in os.listdir(home.store) if store.run(key).epochs()]:
        time.sleep(0.5)
    (key,) = os.listdir(home.store)

    def block() -> Block:
        first = store.run(key).progress()["done"] + 2
        time.sleep(BLOCK_SECONDS)
        return first, store.run(key).progress()["done"]

    def up() -> None:
        assert command.run("up").returncode == 0
        time.sleep(10)  # what was kept is sent

    blocks = {
        "frozen": _alternate(block, lambda: _signal(home, signal.SIGSTOP), lambda: _resume(home)),
        "dead": _alternate(block, lambda: _signal(home, signal.SIGKILL), up),
    }
    assert command.run("stop", "away").returncode == 0
    submit.communicate()
    history = store.run(key).progress()["history"]
    speeds = {entry["epoch"]: entry["system/images_per_s"] for entry in history}
    for kind, pairs in blocks.items():
        ratios = [_speed(speeds, away) / _speed(speeds, there) for there, away in pairs]
        shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"MLflow {kind}: {statistics.median(ratios):.3f} of the speed (median of {shown})")
    run_id = command.runs("away")["only"]["mlflow_run_id"]
    points = command.mlflow().get_metric_history(run_id, "train/loss")
    assert [point.step for point in points] == list(speeds)
    print(f"all {len(speeds)} epochs are in MLflow, each once")
    command.run("down")
    shutil.rmtree(command.folder)


def _alternate(
    block: Callable[[], Block], leave: Callable[[], None], come: Callable[[], None]
) -> list[tuple[Block, Block]]:
    """(there, away) pairs of blocks."""
    pairs = []
    for _ in range(PAIRS):
        there = block()
        leave()
        pairs.append((there, block()))
        come()
    return pairs


def _signal(home: Home, number: signal.Signals) -> None:
    for item in read_json(home.services)["mlflow"]["processes"]:
        os.kill(item["pid"], number)


def _resume(home: Home) -> None:
    _signal(home, signal.SIGCONT)
    time.sleep(10)


def _speed(speeds: dict[int, float], block: Block) -> float:
    """Median images/s of the epochs in a block."""
    return statistics.median(speeds[epoch] for epoch in range(block[0], block[1] + 1))


if __name__ == "__main__":
    main()
