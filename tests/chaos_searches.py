"""Searches one after the other on one cluster, some of them struck, and what they leave behind.

    python -m tests.chaos_searches --rounds 50 --kills 10 --seed 1

Each round submits a small search of its own seed with the real command; in as many rounds as
`--kills` says the driver is killed at a random moment and the study submitted again. After each
round every trial has ended, was trained once, MLflow has nothing RUNNING, and the cluster holds no
placement group and no training process.
"""

import argparse
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from orchestrator.storage.run_records import Store
from orchestrator.storage.trial_log import Trials
from tests.integration.command import Command, wait_for
from tests.ledger import held

EPOCHS, TRIALS = 2, 3
STUDY = """
study: {name}
question: Is anything left?
data: {{digits: {{type: digits, limit: 60}}}}
resources: {{cpus_per_worker: 1}}
stages:
  A:
    trainable: classify
    config:
      {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: {epochs},
        batch_size: 16}}
    search:
      {{trials: {trials}, seed: {seed}, algorithm: random, scheduler: asha, reduction_factor: 2,
        space: {{lr: {{log: [1.0e-4, 0.1]}}}}}}
"""
_LONGEST = 40.0  # seconds after which a driver is killed at the latest


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    struck = set(draw.sample(range(options.rounds), min(options.kills, options.rounds)))
    command = Command(Path(tempfile.mkdtemp(prefix="chaos-")))
    losses = 0
    try:
        assert command.run("up").returncode == 0
        for number in range(options.rounds):
            seed = draw.randrange(2**31)
            kills, started = int(number in struck), time.monotonic()
            fault = play(command, f"chaos{number}", seed, kills, draw)
            losses += fault is not None
            took = time.monotonic() - started
            print(f"round {number}: {fault or 'whole'}, {kills} kills, {took:.0f} s", flush=True)
    finally:
        command.run("down")
        shutil.rmtree(command.folder)
    print(f"{options.rounds} searches, {len(struck)} kills, {losses} losses")
    return 1 if losses else 0


def play(command: Command, name: str, seed: int, kills: int, draw: random.Random) -> str | None:
    """One search, struck or not. Returns what was wrong with its end."""
    file = command.folder / f"{name}.yaml"
    file.write_text(STUDY.format(name=name, seed=seed, epochs=EPOCHS, trials=TRIALS))
    if kills:
        follower = command.start("submit", str(file))
        driver = wait_for(command.driver)
        time.sleep(draw.uniform(0.0, _LONGEST))
        if driver.is_running():
            driver.send_signal(signal.SIGKILL)
        follower.communicate(timeout=300)
    done = command.run("submit", str(file))
    if done.returncode:
        return f"submit ended with {done.returncode}: {done.stderr[-500:]}"
    try:
        check(command, name, kills)
    except AssertionError as error:
        return str(error)
    return None


def check(command: Command, name: str, kills: int) -> None:
    """Raises AssertionError where a search is not whole, or something of it is left."""
    store = Store(command.home / "store")
    plan = json.loads((command.home / "plans" / f"{name}.json").read_text())
    trials = Trials(store.run(plan["searches"][0]["key"]).path).all()
    states = [trial.state for trial in trials]
    assert len(states) == TRIALS and set(states) <= {"FINISHED", "STOPPED"}, states
    for trial in trials:
        texts = [path.read_text() for path in store.run(trial.key).logs().values()]
        done = Counter(re.findall(r"INFO epoch (\d+):", "".join(texts)))
        again = sum(done.values()) - len(done)
        assert again <= kills, f"{trial.label} trained {again} epochs again"
    client = command.mlflow()
    experiment = client.get_experiment_by_name(name)
    every = client.search_runs([experiment.experiment_id], max_results=1000)
    # a driver that was killed before it had a plan has left nothing but this
    runs = [run for run in every if run.data.tags["orchestrator.kind"] != "opening"]
    assert not [run for run in every if run.info.status in ("RUNNING", "SCHEDULED")]
    assert len(runs) == TRIALS + 2, [run.info.run_name for run in runs]
    wrong = [run.info.run_name for run in runs if run.info.status != "FINISHED"]
    assert not wrong, f"not FINISHED in MLflow: {wrong}"
    wait_for(lambda: not held(command.status()["ray"]), 60)


if __name__ == "__main__":
    sys.exit(main())
