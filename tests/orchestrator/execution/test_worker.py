"""The epoch loop: resume, checkpoints, early stopping, errors, and ranks that agree."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from orchestrator.execution.task import Task
from orchestrator.execution.worker import build_training, train
from orchestrator.storage.run_records import StaleWriter, Store
from tests.conftest import ALONE, Tasks
from trainables.engine.checkpoints import Unrecoverable
from trainables.engine.early_stopping import best_epoch
from trainables.loading.image_table import open_table
from trainables.monitoring import recorder as looks
from trainables.monitoring.architecture import from_plain
from trainables.numerics.distributed import World
from trainables.record_files import ARCHITECTURE, kept_features

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class Killed(Exception):
    """Stands for a process that dies between two epochs."""


def kill_after(epochs: int):
    def report(figures):
        report.left -= 1
        if report.left == 0:
            raise Killed

    report.left = epochs
    return report


def learnt(store: Store, task: Task) -> dict[str, torch.Tensor]:
    return torch.load(store.run(task.key).best().weights, weights_only=True)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def figures_of(result: dict) -> list[dict]:
    """The history without what depends on the clock."""
    return [{k: v for k, v in e.items() if not k.startswith("system/")} for e in result["history"]]


def test_a_run_ends_with_a_result_of_the_chosen_epoch(tasks: Tasks):
    task, reported = tasks.make(), []
    train(task, ALONE, reported.append)
    result = tasks.store.run(task.key).result()
    assert [entry["epoch"] for entry in result["history"]] == [1, 2]
    assert len(reported) == 2
    assert result["best_epoch"] == best_epoch(result["history"], "val/accuracy", "max")
    assert 0 <= result["test"]["test/accuracy"] <= 1
    assert tasks.store.run(task.key).best().epoch == result["best_epoch"]


def test_test_figures_are_those_of_the_chosen_checkpoint(tasks: Tasks):
    task = tasks.make()
    train(task, ALONE, lambda figures: None)
    checked = build_training(task, ALONE)
    checked.trainable.model.load_state_dict(learnt(tasks.store, task))
    assert checked.evaluate("test") == tasks.store.run(task.key).result()["test"]


# plain SGD: AdamW's first step is the gradient's sign, which rounding turns where it is zero
BYOL = {"backbone": "resnet10_slim", "hidden": 64, "projection": 16, "probe_every": 1,
        "optimizer": "sgd"}  # fmt: skip
SETTINGS = [
    ("classify", {"optimizer": "sgd", "head": "mlp"}),
    ("rotation", {"optimizer": "adamw", "accumulate": 2}),
    ("classify", {"changes": [{"epoch": 2, "lr": 0.01, "momentum": 0.1, "batch_size": 20}]}),
    (
        "classify",
        {
            "optimizer": "adamw",
            "backbone_lr_factor": 0.3,
            "layer_lr_decay": 0.7,
            "changes": [{"epoch": 2, "weight_decay": 0.1}],
        },
    ),
    ("byol", {**BYOL, "optimizer": "lars", "momentum_schedule": "cosine"}),
]


@pytest.mark.parametrize(("trainable", "settings"), SETTINGS)
def test_a_killed_run_that_goes_on_equals_one_that_was_not(tasks, tmp_path, trainable, settings):
    task = tasks.make(trainable, epochs=3, lr=0.001, **settings)
    train(task, ALONE, lambda figures: None)
    other = Store(tmp_path / "other")
    for attempt, report in enumerate([kill_after(1), kill_after(1), lambda figures: None]):
        again = replace(task, store=str(other.root), attempt=other.run(task.key).begin_attempt())
        if attempt < 2:
            with pytest.raises(Killed):
                train(again, ALONE, report)
        else:
            train(again, ALONE, report)
    undisturbed, resumed = tasks.store.run(task.key).result(), other.run(task.key).result()
    assert figures_of(resumed) == figures_of(undisturbed)
    assert resumed["best_epoch"] == undisturbed["best_epoch"]
    assert resumed["test"] == undisturbed["test"]
    assert same(learnt(other, task), learnt(tasks.store, task))


def test_a_change_is_felt_from_its_epoch_on(tasks: Tasks):
    losses = []
    for change in ({}, {"lr": 0.001}, {"momentum": 0.0}, {"weight_decay": 0.1}, {"batch_size": 30}):
        task = tasks.make(epochs=3, changes=[{"epoch": 2, **change}] if change else [])
        train(task, ALONE, lambda figures: None)
        losses.append(
            [each["train/loss"] for each in tasks.store.run(task.key).result()["history"]]
        )
    assert len({first for first, *_ in losses}) == 1
    assert len({third for _, _, third in losses}) == 5


def test_a_damaged_newest_checkpoint_costs_one_epoch(tasks: Tasks, caplog):
    task = tasks.make(epochs=3)
    with pytest.raises(Killed):
        train(task, ALONE, kill_after(2))
    newest = tasks.store.run(task.key).path / "epoch_00002" / "training.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    reported: list = []
    train(replace(task, attempt=tasks.store.run(task.key).begin_attempt()), ALONE, reported.append)
    assert len(reported) == 2  # epochs 2 and 3
    assert "training.pt" in caplog.text


def test_a_second_seed_learns_something_else(tasks: Tasks):
    task = tasks.make(epochs=1)
    train(task, ALONE, lambda figures: None)
    other = replace(task, seed=1, key="other", attempt=tasks.store.run("other").begin_attempt())
    train(other, ALONE, lambda figures: None)
    assert not same(learnt(tasks.store, task), learnt(tasks.store, other))


def test_an_older_attempt_cannot_write_any_more(tasks: Tasks):
    task = tasks.make()
    tasks.store.run(task.key).begin_attempt()
    with pytest.raises(StaleWriter, match="attempt 2 has taken over"):
        train(task, ALONE, lambda figures: None)


def test_a_loss_that_is_not_finite_fails_with_step_and_cause(tasks: Tasks):
    with pytest.raises(
        Unrecoverable,
        match=r"not finite at epoch 1, step \d+: .*learning rate \(.*e\+\d+\) is too high",
    ):
        train(tasks.make(lr=1e30), ALONE, lambda figures: None)


def test_early_stopping_counts_from_the_best_epoch(tasks: Tasks):
    stop = {"metric": "val/accuracy", "patience": 1}
    task, reported = tasks.make(epochs=50, lr=1e-12, early_stopping=stop), []
    train(task, ALONE, reported.append)
    best = best_epoch(tasks.store.run(task.key).result()["history"], "val/accuracy", "max")
    assert len(reported) == best + 1


def test_the_earliest_of_equal_epochs_is_chosen():
    history = [{"epoch": e, "val/loss": v} for e, v in enumerate([2.0, 1.0, 1.0], start=1)]
    assert best_epoch(history, "val/loss", "min") == 2
    assert best_epoch(history, "val/loss", "max") == 1


def test_weights_of_a_parent_arrive_and_are_named(tasks: Tasks):
    parent = tasks.make("rotation", epochs=1)
    train(parent, ALONE, lambda figures: None)
    child = replace(tasks.make(train="head"), parent=parent.key, parent_label="rotation")
    given = {k: v for k, v in learnt(tasks.store, parent).items() if k.startswith("encoder.")}
    built = build_training(child, ALONE)
    assert same({k: v for k, v in built.trainable.model.state_dict().items() if k in given}, given)
    assert built.facts()["weight_transfer"].startswith(
        f"{len(given)} encoder tensors from rotation epoch"
    )


def test_a_parent_that_is_gone_is_named(tasks: Tasks):
    child = replace(tasks.make(), parent="0123", parent_label="rotation")
    with pytest.raises(Unrecoverable, match="checkpoint of parent rotation"):
        build_training(child, ALONE)


def test_a_renamed_tensor_of_the_parent_is_refused(tasks: Tasks):
    parent = tasks.make("rotation", epochs=1)
    train(parent, ALONE, lambda figures: None)
    best = tasks.store.run(parent.key).best()
    state = torch.load(best.weights, weights_only=True)
    state["encoder.convolution"] = state.pop("encoder.conv1.weight")
    attempt = tasks.store.run(parent.key).begin_attempt()
    files = {"weights.pt": lambda path: torch.save(state, path)}
    tasks.store.run(parent.key).writer(attempt).save(best.epoch, files, best.info)
    with pytest.raises(Unrecoverable, match="missing conv1.weight"):
        build_training(replace(tasks.make(), parent=parent.key, parent_label="rotation"), ALONE)


def test_fewer_images_than_workers_is_said(tasks: Tasks):
    crowd = World(0, 1000, torch.device("cpu"))
    run = build_training(tasks.make(), ALONE)
    run.world = crowd
    with pytest.raises(Unrecoverable, match="workers 1000, accumulate 1 need at least 1000"):
        run.train_epoch()


def test_probes_are_in_the_history_and_features_of_the_first_and_last_epoch_are_kept(tasks: Tasks):
    task = tasks.make("byol", epochs=5, **{**BYOL, "probe_every": 3})
    train(task, ALONE, lambda figures: None)
    history = tasks.store.run(task.key).result()["history"]
    assert ["val/knn_accuracy" in entry for entry in history] == [True, False, True, False, True]
    assert ["initial/knn_accuracy" in entry for entry in history] == [True, *[False] * 4]
    for entry in history:
        assert 0 <= entry.get("val/knn_accuracy", 0) <= 1
        assert entry["val/embedding_std"] > 0 and entry["val/effective_rank"] >= 1
        assert entry["val/projection_std"] > 0 and entry["val/projection_rank"] >= 1
    kept = kept_features(tasks.store.run(task.key).features())
    assert list(kept) == [1, 5]
    with np.load(kept[1]) as first, np.load(kept[5]) as last:
        assert first["features"].shape == last["features"].shape == (len(first["rows"]), 128)
        assert not np.array_equal(first["features"], last["features"])
        assert np.array_equal(first["rows"], last["rows"])
        assert list(first["classes"]) == [str(digit) for digit in range(10)]


def test_what_is_only_looked_at_changes_no_key_and_no_weight(tasks: Tasks, tmp_path: Path):
    task = tasks.make("byol", **{**BYOL, "select": "last"})
    settings = {**BYOL, "select": "last", "probe_every": 0, "tsne_epochs": [2]}
    looked = tasks.make("byol", **settings)
    assert looked.key == task.key
    train(looked, ALONE, lambda figures: None)
    other = Store(tmp_path / "other")
    train(
        replace(task, store=str(other.root), attempt=other.run(task.key).begin_attempt()),
        ALONE,
        print,
    )
    assert same(learnt(other, task), learnt(tasks.store, task))


def test_features_are_kept_beside_the_images_and_serve_other_runs(tasks: Tasks, caplog):
    settings = {"train": "head", "augment": "none", "keep_features": True, "epochs": 1}
    task = tasks.make(**settings)
    train(task, ALONE, lambda figures: None)
    kept = list(Path(task.table, "features").glob("*.npy"))
    caplog.set_level("INFO")
    train(tasks.make(**settings, lr_sweep=[0.1, 0.2]), ALONE, lambda figures: None)
    assert any(f"features are read from {kept[-1]}" in r.message for r in caplog.records)
    open_table(Path(task.table))  # it is whole, whatever lies beside it


def test_a_collapse_is_said_and_ends_the_run_if_asked_to(tasks: Tasks, caplog):
    """A predictor that hardly learns against a target that hardly moves, at a rate that kills."""
    settings = {**BYOL, "epochs": 2, "lr": 30.0, "target_momentum": 0.0}
    task = tasks.make("byol", **settings)
    train(task, ALONE, lambda figures: None)
    result = tasks.store.run(task.key).result()
    assert result["facts"]["warning"].startswith("the embedding has collapsed by epoch 2")
    flat = [entry["val/embedding_collapsed"] for entry in result["history"]]
    assert (flat, result["best_epoch"]) == ([0.0, 1.0], 1)
    run = build_training(task, ALONE)
    run.history = [result["history"][1]]
    with pytest.raises(Unrecoverable, match=r"no epoch can be chosen.* in each of 1: lower lr"):
        run.finish()
    task = tasks.make("byol", on_collapse="stop", **{**settings, "lr": 31.0})
    with pytest.raises(
        Unrecoverable, match="collapsed by epoch .*: lower lr or raise target_momentum"
    ):
        train(task, ALONE, print)
    epochs = tasks.store.run(task.key).epochs()
    with pytest.raises(
        Unrecoverable, match="collapsed by epoch"
    ):  # submitted again, it is no better
        train(task, ALONE, print)
    assert (
        tasks.store.run(task.key).epochs() == epochs and tasks.store.run(task.key).result() is None
    )


def _rank(rank: int, size: int, task: dict, folder: str, epochs: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=size)
    run = build_training(Task(**task), World(rank, size, torch.device("cpu")))
    figures = [run.train_epoch() | run.evaluate("val") | run.evaluate("test")]
    if rank == 0:
        values = {k: v for k, v in figures[0].items() if not k.startswith("system/")}
        Path(folder, "figures.json").write_text(json.dumps(values))
        torch.save(run.trainable.model.state_dict(), Path(folder, "weights.pt"))
    dist.destroy_process_group()


@pytest.mark.parametrize(("trainable", "size"), [("classify", 3), ("rotation", 2)])
def test_ranks_learn_what_one_process_learns(tasks: Tasks, tmp_path: Path, trainable, size):
    """16 images a step cannot be shared equally by three ranks: each weighs by its share."""
    task = tasks.make(trainable, epochs=1)
    plain = {name: getattr(task, name) for name in task.__dataclass_fields__}
    multiprocessing.spawn(_rank, (size, plain, str(tmp_path), 1), nprocs=size)
    together = json.loads((tmp_path / "figures.json").read_text())
    alone = build_training(task, ALONE)
    expected = alone.train_epoch() | alone.evaluate("val") | alone.evaluate("test")
    for name, value in together.items():
        assert value == pytest.approx(expected[name], rel=5e-3, abs=1e-2), name
    learnt_alone = alone.trainable.model.state_dict()
    for name, value in torch.load(tmp_path / "weights.pt", weights_only=True).items():
        torch.testing.assert_close(value, learnt_alone[name], rtol=1e-2, atol=2e-3, msg=name)


# in two parts 48 of the 50 images: each rank has half of either part, so that BatchNorm sees what
# one process shows it
@pytest.mark.parametrize(
    ("trainable", "settings"),
    [
        ("classify", {"batch_size": 54}),
        ("classify", {"batch_size": 54, "mixup": 0.4, "cutmix": 1.0, "erase": 0.5, "ema": 0.9}),
        ("byol", {**BYOL, "batch_size": 54}),
        ("byol", {**BYOL, "batch_size": 48, "accumulate": 2}),
    ],
)
def test_one_step_of_two_ranks_is_the_one_process_gradient(tasks, tmp_path, trainable, settings):
    # all training images, or all but two: exactly one step. Of this seed no activation lies so near
    # to zero that rounding opens a ReLU
    task = replace(tasks.make(trainable, epochs=1, **settings), seed=2)
    plain = {name: getattr(task, name) for name in task.__dataclass_fields__}
    multiprocessing.spawn(_rank, (2, plain, str(tmp_path), 1), nprocs=2)
    alone = build_training(task, ALONE)
    before = {k: v.clone() for k, v in alone.trainable.model.state_dict().items()}
    alone.train_epoch()
    after = alone.trainable.model.state_dict()
    together = torch.load(tmp_path / "weights.pt", weights_only=True)
    moved = 0
    for name, value in after.items():
        if name.endswith(("num_batches_tracked", "steps")):
            assert torch.equal(together[name], value), name
            continue
        moved += int(not torch.equal(value, before[name]))
        theirs, mine = together[name] - before[name], value - before[name]
        assert float((theirs - mine).norm()) <= 2e-4 * float(mine.norm()) + 1e-6, name
    assert moved > 60


@pytest.mark.parametrize("trainable", ["classify", "rotation"])
def test_a_run_keeps_what_its_model_is_made_of(tasks: Tasks, trainable: str):
    task = tasks.make(trainable)
    train(task, ALONE, lambda figures: None)
    with np.load(tasks.store.run(task.key).path / ARCHITECTURE) as kept:
        one = from_plain(json.loads(str(kept["json"])))
    weights = torch.load(tasks.store.run(task.key).best().weights, weights_only=True)
    learnt = [w for name, w in weights.items() if not name.endswith(BUFFERS)]
    assert one.parameters == sum(weight.numel() for weight in learnt)


def test_a_model_that_cannot_be_traced_costs_its_diagram_alone(tasks: Tasks, monkeypatch, caplog):
    def fails(*given):
        raise RuntimeError("no graph")

    monkeypatch.setattr(looks, "architecture", fails)
    task = tasks.make()
    train(task, ALONE, lambda figures: None)
    assert tasks.store.run(task.key).result() is not None
    assert not (tasks.store.run(task.key).path / ARCHITECTURE).exists()
    assert "the model cannot be drawn: RuntimeError: no graph" in caplog.text
