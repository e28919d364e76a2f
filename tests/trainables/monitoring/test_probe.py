"""Features and probes: the same on one rank and on two, in the order of the samples."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from orchestrator.execution.task import Task
from orchestrator.execution.worker import build_training
from tests.conftest import ALONE, Tasks
from trainables.monitoring.probe import (
    features,
    probe,
    sample,
    spread,
    tsne_input,
    validation_features,
)
from trainables.numerics.distributed import World
from trainables.transforms.geometry import normalize

SPREAD = ("val/embedding_std", "val/effective_rank", "val/embedding_collapsed")
PROJECTED = ("val/projection_std", "val/projection_rank", "val/projection_collapsed")


def test_features_come_in_the_order_of_the_samples(tasks: Tasks):
    run = build_training(tasks.make(), ALONE)
    rows = run.table.parts["val"][::-1].copy()
    found = features(run.trainable, run.table, rows, ALONE, nullcontext)
    run.trainable.model.eval()
    with torch.inference_mode():
        images = torch.from_numpy(run.table.images[rows])
        wanted = run.trainable.model.encoder(normalize(images))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def _rank(rank: int, task: dict, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    run = build_training(Task(**task), world)
    seen = validation_features(run.trainable, run.table, world, nullcontext)
    found = probe(run.trainable, run.table, seen, world, nullcontext)
    torch.save((found, seen), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_see_what_one_sees(tasks: Tasks, tmp_path: Path):
    task = tasks.make()
    plain = {name: getattr(task, name) for name in task.__dataclass_fields__}
    multiprocessing.spawn(_rank, (plain, str(tmp_path)), nprocs=2)
    alone = build_training(task, ALONE)
    kept = validation_features(alone.trainable, alone.table, ALONE, nullcontext)
    wanted = probe(alone.trainable, alone.table, kept, ALONE, nullcontext)
    for rank in range(2):
        found, seen = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == wanted.keys() == {
            "val/knn_accuracy", "val/linear_accuracy", *SPREAD
        }  # fmt: skip
        assert found == pytest.approx(wanted, rel=1e-3)
        torch.testing.assert_close(seen, kept, atol=1e-4, rtol=1e-3)


def test_a_snapshot_holds_what_a_map_is_drawn_from(tasks: Tasks):
    run = build_training(tasks.make(), ALONE)
    found = validation_features(run.trainable, run.table, ALONE, nullcontext)
    kept = tsne_input(run.table, found)
    assert np.array_equal(kept["rows"], run.table.parts["val"])
    assert np.array_equal(kept["labels"], run.table.labels[kept["rows"]])
    assert kept["features"].shape == (len(kept["rows"]), 128)


def test_a_sample_is_always_the_same_and_in_order():
    rows = np.arange(100, 400)
    few = sample(rows, 50)
    assert len(few) == 50 and np.array_equal(few, sample(rows, 50))
    assert (np.diff(few) > 0).all() and set(few) <= set(rows)
    assert np.array_equal(sample(rows, 300), rows)


def test_classes_of_pixels_are_not_asked_of_whole_images(tasks: Tasks):
    run = build_training(
        tasks.make("byol", backbone="resnet10_slim", hidden=8, projection=8), ALONE
    )
    masks = np.zeros((len(run.table.images), 8, 8), dtype=np.uint8)
    table = replace(run.table, masks=masks, labels=np.full(len(masks), -1))
    seen = validation_features(run.trainable, table, ALONE, nullcontext)
    assert set(probe(run.trainable, table, seen, ALONE, nullcontext)) == {*SPREAD, *PROJECTED}
    assert len(tsne_input(table, seen)["classes"]) == 0


def test_a_dead_projection_over_a_lively_encoder_is_seen(tasks: Tasks):
    run = build_training(
        tasks.make("byol", backbone="resnet10_slim", hidden=8, projection=8), ALONE
    )
    seen = validation_features(run.trainable, run.table, ALONE, nullcontext)
    alive = probe(run.trainable, run.table, seen, ALONE, nullcontext)
    assert alive.keys() == {"val/knn_accuracy", "val/linear_accuracy", *SPREAD, *PROJECTED}
    assert not alive["val/embedding_collapsed"] and not alive["val/projection_collapsed"]
    with torch.no_grad():
        projection = run.trainable.model.projector(seen).numpy().astype(np.float64)
    unit = projection / np.linalg.norm(projection, axis=1, keepdims=True)
    assert alive["val/projection_std"] == pytest.approx(unit.std(0).mean(), rel=1e-6)
    shares = np.linalg.svd(unit - unit.mean(0), compute_uv=False)
    shares /= shares.sum()
    rank = np.exp(-(shares * np.log(shares)).sum())
    assert alive["val/projection_rank"] == pytest.approx(rank, rel=1e-5)
    with torch.no_grad():
        run.trainable.model.projector[-1].weight.zero_()  # its bias alone is left
    dead = spread(run.trainable, run.table, ALONE, nullcontext)
    assert (dead["val/embedding_collapsed"], dead["val/projection_collapsed"]) == (0.0, 1.0)
    assert dead["val/projection_rank"] == 1.0
    for name in SPREAD:
        assert dead[name] == pytest.approx(alive[name], rel=1e-6), name
