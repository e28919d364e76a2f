"""Does training slow down while MLflow is away, and is anything missing afterwards?

    python -m tests.benchmarks.mlflow_away

One Run on all CPUs; in its middle the MLflow server is frozen for a minute and dead for another.
Prints images/s of the epochs within and outside of these two minutes, and their ratio.
"""

import os
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path

from orchestrator.home import Home, read_json
from orchestrator.store import Store
from tests.integration.command import Command

EPOCHS = 60
STUDY = f"""
study: away
question: Does training wait for MLflow?
data: {{digits: {{type: digits}}}}
stages:
  only: {{trainable: rotation, config: {{dataset: digits, epochs: {EPOCHS}, lr: 0.01}}}}
"""


def main() -> None:
    command = Command(Path(tempfile.mkdtemp(prefix="away-")))
    home, file = Home(command.home), command.folder / "away.yaml"
    file.write_text(STUDY)
    submit = command.start("submit", str(file))
    store = Store(home.store)
    while not any(len(store.epochs(key)) for key in os.listdir(_made(home.store))):
        time.sleep(0.5)
    (key,) = os.listdir(home.store)
    _wait_for(store, key, EPOCHS // 4)
    first = store.progress(key)["epoch"]
    pids = [item["pid"] for item in read_json(home.services)["mlflow"]["processes"]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(60)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    time.sleep(60)
    last = store.progress(key)["epoch"]
    assert command.run("up").returncode == 0
    out, err = submit.communicate()
    assert submit.returncode == 0, out + err
    speeds = {e["epoch"]: e["system/images_per_s"] for e in store.result(key)["history"]}
    away = [speed for epoch, speed in speeds.items() if first + 1 < epoch <= last]
    there = [speed for epoch, speed in speeds.items() if 2 < epoch <= first or epoch > last + 2]
    run_id = command.runs("away")["only"]["mlflow_run_id"]
    points = command.mlflow().get_metric_history(run_id, "train/loss")
    assert [point.step for point in points] == list(range(1, EPOCHS + 1))
    a, b = statistics.median(away), statistics.median(there)
    print(f"MLflow away: {a:.1f} images/s (median of {len(away)} epochs)")
    print(f"MLflow there: {b:.1f} images/s (median of {len(there)} epochs)")
    print(f"ratio {a / b:.3f}; all {EPOCHS} epochs are in MLflow, each once")
    command.run("down")
    shutil.rmtree(command.folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _wait_for(store: Store, key: str, epoch: int) -> None:
    while store.progress(key)["epoch"] < epoch:
        time.sleep(0.5)


if __name__ == "__main__":
    main()
