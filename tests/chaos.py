"""Strike a running study at random, submit it again, and count whether anything was lost.

    python -m tests.chaos --rounds 30 --seed 1

Each round trains a small study with the real command, Ray head and MLflow server, strikes at a
moment drawn from the seed, submits until all is done, and checks the ledger (tests/ledger.py)
against an undisturbed run: same weights bit for bit, every step once, no state that is not true.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from orchestrator.services.processes import marked
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from tests.conftest import damage
from tests.integration.command import Command
from tests.ledger import Reference, check, reference

EPOCHS = 4
STUDY = """
study: {name}
question: Is anything lost?
data: {{digits: {{type: digits, limit: 120}}}}
resources: {{cpus_per_worker: 1, workers: {workers}}}
stages:
  rotation: {{trainable: rotation, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: {epochs}, batch_size: 16, lr: 0.01, checkpoint_every: {{epochs: 1}}}}}}
  late: {{trainable: classify, after: rotation, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, train: late, epochs: {epochs}, batch_size: 16, lr: 0.01, checkpoint_every: {{epochs: 1}}}}}}
"""  # noqa: E501
LABELS = ("rotation", "late")
KEYS: dict[str, str] = {}  # label → key


class Round:
    """One study, from its first submit to its end."""

    def __init__(self, command: Command, name: str, workers: int, draw: random.Random) -> None:
        self.command, self.name, self.draw = command, name, draw
        self.home = Home(command.home)
        self.store = Store(self.home.store)
        self.file = command.folder / f"{name}.yaml"
        self.file.write_text(STUDY.format(name=name, workers=workers, epochs=EPOCHS))
        self.home.create()
        shutil.rmtree(self.home.store)
        self.home.store.mkdir()
        if not KEYS:  # neither a study's name nor its resources are in a key
            KEYS.update((item["label"], item["key"]) for item in self._plan())
        self.keys = KEYS
        self.followers: list[subprocess.Popen] = []

    def _plan(self) -> list[dict]:
        return json.loads(self.command.ask("plan", str(self.file), "--json").stdout)

    def submit(self) -> subprocess.Popen:
        self.followers.append(self.command.start("submit", str(self.file)))
        return self.followers[-1]

    def until(self, label: str, epochs: float) -> None:
        """Wait until a Run is so far; a submit that ends meanwhile ends the waiting."""
        while self.followers[-1].poll() is None:
            progress = self.store.run(self.keys[label]).progress()
            if progress and progress["done"] >= epochs:
                return
            time.sleep(0.02)

    def until_saving(self, label: str) -> None:
        """Wait until a checkpoint is being written."""
        folder = self.store.run(self.keys[label]).path
        while self.followers[-1].poll() is None and not list(folder.glob(".epoch_*")):
            time.sleep(0.002)

    def worker(self) -> psutil.Process:
        """A process that trains now."""
        return self.draw.choice(self._named("TrainWorker"))

    def controller(self) -> psutil.Process:
        return self._named("TrainController")[0]

    def driver(self) -> psutil.Process:
        return self._named("-m orchestrator.driver.driver")[0]

    def service(self, name: str, word: str = "") -> psutil.Process:
        """The first process of Ray's head or of the MLflow server, or one below it by its name."""
        record = json.loads(self.home.services.read_text())[name]["processes"]
        first = psutil.Process(record[0]["pid"])
        found = [first, *first.children(recursive=True)]
        return next(p for p in found if word in " ".join(p.cmdline()))

    def tree(self) -> list[psutil.Process]:
        """Everything: the commands, both services, and all they have started."""
        roots = [self.service("mlflow")]
        roots += [psutil.Process(p.pid) for p in self.followers if p.poll() is None]
        below = [p for root in roots for p in [root, *root.children(recursive=True)]]
        return [*self._of_ray(), *below]

    def leave(self) -> None:
        """Stop the study, whatever became of it."""
        for process in self.followers:
            process.kill()
            process.communicate()
        self.command.run("stop", self.name)

    def _of_ray(self) -> list[psutil.Process]:
        """Every process that the head has started, those of a template that has died too."""
        return marked(f"ray of {self.home.root}")

    def _named(self, word: str) -> list[psutil.Process]:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            found = []
            for process in self._of_ray():
                try:
                    line = " ".join(process.cmdline())
                except psutil.Error:
                    continue
                if word in line and not line.startswith(("/bin/sh", "sh ", "/bin/bash")):
                    found.append(process)
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"no process {word} of {self.name}")


def kill(*processes: psutil.Process) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


# --- strikes: each is handed a round whose Run has come to a drawn point ------------------------


def _mlflow(this: Round) -> None:
    server = this.service("mlflow")
    kill(server, *server.children(recursive=True))
    time.sleep(this.draw.uniform(0, 20))
    assert this.command.run("up").returncode == 0


def _stop(this: Round) -> None:
    this.driver()  # before there is one, there is nothing to stop
    began = time.monotonic()
    result = this.command.run("stop", this.name)
    assert result.returncode == 0, result.stderr
    print(f"    stopped in {time.monotonic() - began:.1f} s")


def _twice(this: Round) -> None:
    """A second submit while the first is under way, and a third at the same time."""
    more = [this.submit(), this.submit()]
    for process in more:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0 and "following job" in err, err


def _damage(this: Round) -> None:
    """The whole tree, and then one file of the store, if there is any yet."""
    kill(*this.tree())
    files = [p for p in this.home.store.rglob("*") if p.is_file() and "/." not in str(p)[4:]]
    if not files:
        return
    path = this.draw.choice(sorted(files))
    how = this.draw.choice(["cut", "zeroed", "missing"])
    print(f"    {path.relative_to(this.home.store)} {how}")
    damage(path, how)


def _frozen(this: Round) -> None:
    """A driver that sleeps for a while: a submit meanwhile follows it and takes nothing."""
    driver = this.driver()
    driver.send_signal(signal.SIGSTOP)
    this.submit()
    time.sleep(this.draw.uniform(5, 15))
    driver.send_signal(signal.SIGCONT)


STRIKES: dict[str, Callable[[Round], None]] = {
    "worker": lambda this: kill(this.worker()),
    "controller": lambda this: kill(this.controller()),
    "driver": lambda this: kill(this.driver()),
    "mlflow": _mlflow,
    "template": lambda this: kill(this.draw.choice(this._named("warm/template.py"))),
    "head": lambda this: kill(this.service("ray", "gcs_server")),
    "raylet": lambda this: kill(this.service("ray", "raylet/raylet")),
    "tree": lambda this: kill(*this.tree()),
    "stop": _stop,
    "twice": _twice,
    "damage": _damage,
    "frozen": _frozen,
}


def play(this: Round, strike: str, wanted: Reference | None) -> Reference:
    """One round. Raises AssertionError when the ledger does not balance."""
    this.submit()
    if strike != "none":
        label, point = this.draw.choice(LABELS), this.draw.uniform(0, EPOCHS)
        moment = this.draw.choice(
            ["starting", "saving", f"epoch {point:.2f}", f"epoch {point:.2f}"]
        )
        print(f"    {label} {moment}", flush=True)
        if moment == "saving":
            this.until_saving(label)
        elif moment != "starting":  # then it strikes as soon as there is something to strike
            this.until(label, point)
        STRIKES[strike](this)
    for attempt in range(4):
        process = this.followers[-1] if attempt == 0 else this.submit()
        out, err = process.communicate(timeout=600)
        if process.returncode == 0:
            break
        print(f"    submit ended with {process.returncode}: {(err.strip() or out)[-200:]}")
    else:
        raise AssertionError(f"four submits did not finish it:\n{out}\n{err}")
    found = reference(this.store, this.keys)
    for process in this.followers:
        process.communicate(timeout=60)
    check(this.command, this.name, this.store, this.keys, EPOCHS, damaged=strike == "damage")
    if wanted is not None:
        assert found == wanted, "other weights, figures or chosen epoch than undisturbed"
    return found


def drawn(strikes: list[str], seed: int, number: int) -> str:
    """The strike of a round: every one comes once before any comes again."""
    block, place = divmod(number, len(strikes))
    return random.Random(f"{seed}/{block}").sample(strikes, len(strikes))[place]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--only", nargs="*", choices=STRIKES, default=list(STRIKES))
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # services are stopped then, too
    command = Command(Path(tempfile.mkdtemp(prefix="chaos-")))
    lost, wanted = 0, {}
    try:
        for workers in options.workers:
            this = Round(command, f"calm_{workers}", workers, random.Random(0))
            wanted[workers] = play(this, "none", None)
            print(f"undisturbed with {workers} workers: done", flush=True)
        for number in range(options.first, options.first + options.rounds):
            draw = random.Random(f"{options.seed}/{number}")
            strike, workers = (
                drawn(options.only, options.seed, number),
                draw.choice(options.workers),
            )
            print(f"round {number}: {strike}, {workers} workers", flush=True)
            began = time.monotonic()
            this = Round(command, f"round_{number}", workers, draw)
            try:
                play(this, strike, wanted[workers])
                print(f"    whole, {time.monotonic() - began:.0f} s", flush=True)
            except AssertionError as error:
                lost += 1
                print(f"    LOST: {error}", flush=True)
                this.leave()  # the next round must not meet what is left of this one
    finally:
        command.run("down")
    print(f"{options.rounds} rounds, {lost} losses, seed {options.seed}")
    if not lost:
        shutil.rmtree(command.folder)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
