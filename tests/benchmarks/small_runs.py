"""How much of the time do the slots train? Many of the smallest Runs on two slots, from the start
of the first attempt to the end of the last one. And what a home weighs after a study.

    python -m tests.benchmarks.small_runs --runs 200
    python -m tests.benchmarks.small_runs --weigh digits
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from orchestrator.storage.home import Home
from orchestrator.storage.run_records import ATTEMPT, DONE, Store
from tests.benchmarks.turns import Line, machine, table
from tests.integration.command import Command

SLOTS = 2
STUDY = """
study: many
question: How long does a slot wait?
data: {{digits: {{type: digits, limit: 60}}}}
resources: {{cpus_per_worker: 1}}
stages:
  one: {{trainable: classify, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: {epochs}, batch_size: 16, lr: 0.01}}}}
seeds: {seeds}
"""  # noqa: E501


def many(command: Command, runs: int, epochs: int) -> list[Line]:
    """Train them, and return the share of the time in which a slot trains."""
    file = command.folder / "many.yaml"
    file.write_text(STUDY.format(epochs=epochs, seeds=list(range(runs))))
    planned = json.loads(command.ask("plan", str(file), "--json").stdout)
    assert command.run("submit", str(file)).returncode == 0
    store, trained, began, ended = Store(command.home / "store"), 0.0, [], []
    for item in planned:
        folder = store.run(item["key"])
        trained += float((folder.result() or {})["seconds"])
        began.append((folder.path / ATTEMPT).stat().st_mtime)
        ended.append((folder.path / DONE).stat().st_mtime)
    whole = max(ended) - min(began)
    share = trained / (SLOTS * whole)
    what = f"{runs} Runs of {epochs} epochs of 54 images on {SLOTS} slots"
    return [
        Line(f"{what}: share of the time that the slots train", f"{share:.2f}", "≥ 0.9", 1),
        Line(f"{what}: one Run trains, on average", f"{trained / runs:.2f} s", "", 1),
        Line(f"{what}: from the first start to the last end", f"{whole:.0f} s", "", 1),
    ]


def weigh(command: Command, study: str) -> list[Line]:
    """Submit a study, and return what is in the home then."""
    assert command.run("submit", study).returncode == 0
    home = Home(command.home)
    places = {"the home": home.root, "its store": home.store, "MLflow's artifacts": home.artifacts}
    return [
        Line(f"{name} after {Path(study).stem}, links counted once", f"{size(path) / 1e6:.0f} MB",
             "", 1)
        for name, path in places.items()
    ]  # fmt: skip


def size(folder: Path) -> int:
    """Bytes on disk below a folder; a file with several names there counts once."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        found[state.st_ino] = state.st_blocks * 512
    return sum(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=0, help="how many small Runs")
    parser.add_argument("--epochs", type=int, default=4, help="of each of them")
    parser.add_argument("--weigh", metavar="STUDY", help="weigh the home after a study, by itself")
    options = parser.parse_args()
    command = Command(Path(tempfile.mkdtemp(prefix="bench-")))
    lines: list[Line] = []
    try:
        assert command.run("up").returncode == 0
        if options.weigh:
            lines += weigh(command, options.weigh)
        if options.runs:
            lines += many(command, options.runs, options.epochs)
    finally:
        command.run("down")
        shutil.rmtree(command.folder)
    print(f"{machine()}\n\n{table(lines)}")


if __name__ == "__main__":
    main()
