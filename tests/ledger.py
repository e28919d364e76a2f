"""What must be true of a study that has ended, whatever happened on the way."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import requests
import torch
from mlflow import MlflowClient

from orchestrator.storage.run_records import Store
from orchestrator.tracking.publisher import DAMAGED
from tests.integration.command import Command, wait_for
from trainables.engine.early_stopping import best_epoch
from trainables.metrics import metric_of
from trainables.tasks.registry import TRAINABLES


@dataclass(frozen=True)
class Learnt:
    """What a Run came to: equal bit for bit, or something was lost."""

    weights: str  # sha256 over the tensors of the best checkpoint
    best: int
    test: dict
    history: list  # without what the clock says


Reference = dict[str, Learnt]  # label → what it came to


def reference(store: Store, keys: dict[str, str]) -> Reference:
    """What the store holds of finished Runs. keys: label → key."""
    found = {}
    for label, key in keys.items():
        result, best = store.run(key).result(), store.run(key).best()
        assert result is not None and best is not None, f"{label} has no result"
        history = [
            {name: value for name, value in entry.items() if not name.startswith("system/")}
            for entry in result["history"]
        ]
        found[label] = Learnt(_hash(best.weights), result["best_epoch"], result["test"], history)
    return found


def check(
    command: Command,
    study: str,
    store: Store,
    keys: dict[str, str],
    epochs: int,
    damaged: bool = False,
) -> None:
    """Every Run finished once, every step is there once, no checkpoint is damaged, the chosen one
    is the best logged, nothing runs or is held any more. Raises AssertionError.

    damaged: a file of the store was. That may cost an epoch more, or all of a Run that had ended;
    and one checkpoint of such a Run, which is not the chosen one: MLflow says so where it has no
    model of it.
    """
    status = command.status()
    (found,) = [item for item in status["studies"] if item["study"] == study]
    assert found["state"] == "FINISHED", found["state"]
    assert {run["state"] for run in found["runs"]} == {"FINISHED"}, found["runs"]
    client = MlflowClient(status["mlflow"]["tracking_uri"])
    experiment = client.get_experiment_by_name(study)
    tracked = client.search_runs([experiment.experiment_id], max_results=1000)
    names = Counter(run.info.run_name for run in tracked if _tag(run, "kind") != "submission")
    assert set(names.values()) == {1}, f"MLflow has Runs twice: {names}"
    assert {run.info.status for run in tracked} == {"FINISHED"}
    for run in tracked:
        if _tag(run, "kind") != "submission":
            key = keys[_tag(run, "label")]
            _check_run(client, run, store, key, epochs, damaged)
            _check_repeats(store.run(key).logs(), epochs, damaged)
    wait_for(lambda: not held(status["ray"]), 30)


def _check_run(
    client: MlflowClient, run, store: Store, key: str, epochs: int, damaged: bool
) -> None:
    result = store.run(key).result()
    for name in ("train/loss", "val/loss"):
        steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
        assert steps == list(range(1, epochs + 1)), f"{run.info.run_name} {name}: steps {steps}"
    metric = TRAINABLES[_tag(run, "trainable")].SELECT
    logged = client.get_metric_history(run.info.run_id, metric)
    best = best_epoch(
        [{"epoch": p.step, metric: p.value} for p in logged], metric, metric_of(metric).mode
    )
    assert best == result["best_epoch"] == int(_tag(run, "best_epoch"))
    for name, value in result["test"].items():
        assert [p.value for p in client.get_metric_history(run.info.run_id, name)] == [value]
    lost = [epoch for epoch in store.run(key).epochs() if store.run(key).load(epoch) is None]
    assert len(lost) <= damaged and best not in lost, f"{key}: epochs {lost} are damaged"
    assert run.data.params and _tag(run, "described")
    models = client.search_logged_models([run.info.experiment_id])
    own = [model for model in models if model.source_run_id == run.info.run_id]
    wanted = {name: f"{_tag(run, 'stage')}-{name}" for name in ("best", "last")}
    if best == epochs:  # one model for both
        assert _tag(run, "model_last") == _tag(run, "model_best")
        del wanted["last"]
    if epochs in lost and _tag(run, "model_last") == DAMAGED:  # before MLflow had it
        del wanted["last"]
    assert sorted(model.name for model in own) == sorted(wanted.values()), own
    addresses = {model.name: f"models:/{model.model_id}" for model in own}
    assert {_tag(run, f"model_{n}") for n in wanted} == {addresses[m] for m in wanted.values()}


def _check_repeats(logs: dict[tuple[int, int], Path], epochs: int, damaged: bool) -> None:
    """An attempt may train again what the one before was at when it died: the epoch that it was
    writing, and the next; where a file was damaged one more, or all where the Run had ended."""
    last = 0
    for (attempt, rank), path in logs.items():
        done = [int(n) for n in re.findall(r"INFO epoch (\d+):", path.read_text())]
        if rank == 0 and done:
            assert done == list(range(done[0], done[-1] + 1))
            anew = damaged and done[0] == 1 and last == epochs
            again = last + 1 - done[0]
            assert anew or again <= 2 + damaged, f"attempt {attempt}: {done[0]} after {last}"
            last = done[-1]


def held(ray: dict) -> list[str]:
    """Placement groups and training processes that the cluster still has."""
    token = Path(ray["token_path"]).read_text()
    headers = {"Authorization": f"Bearer {token}"}
    found = []
    for kind, states in (("placement_groups", {"REMOVED"}), ("actors", {"DEAD"})):
        url = f"{ray['dashboard_url']}/api/v0/{kind}?limit=1000&detail=1"
        rows = requests.get(url, headers=headers, timeout=30).json()["data"]["result"]["result"]
        for row in rows:
            name = row.get("class_name") or row.get("name") or "placement group"
            trains = "Train" in name and name != "TrainStateActor" or "ImplicitFunc" in name
            ours = kind == "placement_groups" or trains
            if ours and row["state"] not in states:
                found.append(f"{name} {row['state']}")
    return found


def _tag(run, name: str) -> str:
    return run.data.tags.get(f"orchestrator.{name}", "")


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(torch.load(path, weights_only=True).items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
