"""PBT: the worst trials copy from the best, and the result can be trained again from its recipe."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from ray.tune.search import Searcher

from orchestrator.execution.task import Task
from orchestrator.execution.worker import train
from orchestrator.planning.search_plan import best_configurations, config_of
from orchestrator.sampling.dimension import Dimension
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from orchestrator.tuning import trial_worker as trial
from orchestrator.tuning.pbt import continue_from
from orchestrator.tuning.ray_tune import TrialFeed
from orchestrator.tuning.trial_worker import run_trial
from orchestrator.tuning.tuner import Tuner
from tests.conftest import ALONE, Tasks, damage
from tests.orchestrator.tuning.searches import open_search
from trainables.config import as_plain

FORM = {
    "trials": 4,
    "algorithm": "random",
    "scheduler": "pbt",
    "space": {
        "lr": {"log": [1e-4, 0.1]},
        "batch_size": {"choice": [16, 20]},
        "momentum": {"uniform": [0.0, 0.95]},
    },
    "then": {},
}


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """Figures that were reported to Ray Tune."""
    found: list[dict[str, float]] = []
    monkeypatch.setattr(trial, "_report", found.append)
    return found


def to_boundary(tuner: Tuner, indices: Sequence[int]) -> None:
    for index in indices:
        tuner.book.on_trial_start(index)
        drawn = tuner.book.trials.get(index)
        assert drawn is not None
        run_trial(tuner.config_of(drawn))


def test_the_worst_copy_from_the_best_and_a_run_with_the_recipe_reaches_the_same(
    digits_home: Home, reported: list[dict[str, float]]
):
    tuner, sync = open_search(digits_home, {**FORM, "seed": 21, "quantile": 0.5})
    for index in range(4):
        tuner.book.draw(index)
    before = tuner.book.trials.all()
    assert len({each.key for each in before} | {tuner.planned.run_of(before[0].values).key}) == 5
    to_boundary(tuner, range(4))
    assert [(entry["epoch"], entry["ended"]) for entry in reported] == [(1, 0.0)] * 4
    scores = {each.index: tuner.book.store.run(each.key).history()[-1] for each in before}
    order = sorted(scores, key=lambda index: (scores[index]["val/accuracy"], -index))
    tuner.book.population.evolve(range(4), 1.0)
    after = tuner.book.trials.all()
    assert {each.index for each in after if each.lineage} == set(order[:2])
    for old, new in zip(before, after, strict=True):
        if not new.lineage:
            assert new == old
            continue
        (step,) = new.lineage
        assert (step["epoch"], step["trial"] in order[2:]) == (1, True)
        assert new.label == old.label
        assert not tuner.book.store.run(old.key).path.exists()
        donor = before[step["trial"]]
        assert tuner.book.store.run(new.key).history() == [scores[donor.index]]
        assert new.current == {**donor.values, **step["values"]}
    to_boundary(tuner, range(4))
    assert [(entry["epoch"], entry["ended"]) for entry in reported[4:]] == [(2, 1.0)] * 4
    for index in range(4):
        tuner.book.on_trial_complete(index)
    copier = tuner.book.trials.get(order[0])
    assert sync.ends[copier.label] == ("FINISHED", "", "finished")
    # a Run with its recipe reaches the same figures in every epoch
    run = tuner.book.population.run_of(copier)
    config = as_plain(config_of(tuner.planned.stage, copier.recipe))
    assert config["changes"]
    alone = {**tuner.config_of(copier)["task"], "key": "alone", "config": config, "until": None}
    task = Task(
        **{**alone, "attempt": tuner.book.store.run("alone").begin_attempt(), "tested": True}
    )
    train(task, ALONE, lambda figures: None)
    expected = tuner.book.store.run(run.key).history()
    found = tuner.book.store.run("alone").result()["history"]
    for name in ("train/loss", "val/loss", "val/accuracy"):
        assert [entry[name] for entry in found] == [entry[name] for entry in expected]
    (winner,) = best_configurations(tuner.book.store, tuner.planned)
    assert winner in [each.recipe for each in tuner.book.trials.all()]


def test_a_driver_that_died_at_a_boundary_continues_with_the_same_trials(
    digits_home: Home, reported: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
):
    form = {**FORM, "seed": 22, "trials": 3}
    tuner, _ = open_search(digits_home, form)
    for index in range(3):
        tuner.book.draw(index)
    to_boundary(tuner, range(3))

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tuner.book.trials, "evolve", dies)
        tuner.book.population.evolve(range(3), 1.0)
    again, _ = open_search(digits_home, form)
    assert again.book.trials.all() == tuner.book.trials.all()
    reported.clear()
    attempts = [again.book.store.run(each.key).attempt() for each in again.book.trials.all()]
    to_boundary(again, range(3))
    assert [entry["epoch"] for entry in reported] == [1, 1, 1]  # reported again, and not trained
    assert [
        again.book.store.run(each.key).attempt() for each in again.book.trials.all()
    ] == attempts
    again.book.population.evolve(range(3), 1.0)
    assert sum(bool(each.lineage) for each in again.book.trials.all()) == 1
    third, _ = open_search(digits_home, form)
    assert third.book.trials.all() == again.book.trials.all()
    assert third.book.population.boundary == 2


def test_a_trial_whose_checkpoint_is_lost_is_the_worst(
    digits_home: Home, reported: list[dict[str, float]]
):
    tuner, _ = open_search(digits_home, {**FORM, "seed": 23, "trials": 2})
    for index in range(2):
        tuner.book.draw(index)
    to_boundary(tuner, range(2))
    tuner.book.store.run(tuner.book.trials.get(0).key).forget()
    tuner.book.population.evolve(range(2), 1.0)
    assert [step["trial"] for step in tuner.book.trials.get(0).lineage] == [1]


def test_a_trial_continues_as_it_is_when_the_checkpoint_of_the_better_one_is_damaged(
    digits_home: Home, reported: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch
):
    tuner, _ = open_search(digits_home, {**FORM, "seed": 24, "trials": 2})
    for index in range(2):
        tuner.book.draw(index)
    to_boundary(tuner, range(2))
    before = tuner.book.trials.all()
    scores = {
        each.key: tuner.book.store.run(each.key).history()[-1]["val/accuracy"] for each in before
    }
    better = max(before, key=lambda each: (scores[each.key], -each.index))
    monkeypatch.setattr(tuner.book.population, "_score", lambda trial: scores[trial.key])
    damage(tuner.book.store.run(better.key).path / "epoch_00001" / "weights.pt", "one bit")
    tuner.book.population.evolve(range(2), 1.0)
    assert tuner.book.trials.all() == before
    assert tuner.book.population.boundary == 2


def test_a_trial_that_copies_keeps_its_logs_and_its_attempt_number(tasks: Tasks):
    store, own = tasks.store, tasks.make(epochs=2)
    donor = replace(tasks.make(epochs=4), tested=False)  # as a trial: it keeps its optimizer
    train(donor, ALONE, lambda figures: None)
    store.run(own.key).begin_attempt()
    store.run(own.key).log_file(2, 0).write_text("of its own")
    assert continue_from(store, "new", own.key, donor.key, 4)
    assert store.run("new").attempt() == 2
    assert store.run("new").logs()[2, 0].read_text() == "of its own"
    assert store.run("new").newest().epoch == 4
    assert store.run("new").load(4).files == store.run(donor.key).load(4).files
    assert not continue_from(store, "another", own.key, donor.key, 2)  # pruned
    assert not store.run("another").path.exists()


@pytest.mark.parametrize("axis", [{"log": [1e-4, 1.0]}, {"uniform": [0.0, 0.95]}])
def test_values_stay_within_the_space(digits_home: Home, axis: dict):
    name = "lr" if "log" in axis else "momentum"
    tuner, _ = open_search(digits_home, {**FORM, "space": {name: axis}, "seed": 25})
    low, high = Dimension.model_validate(axis).bounds
    draw = random.Random(0)
    for value in (low, (low + high) / 2, high):
        found = [tuner.book.population.explore({name: value}, draw)[name] for _ in range(100)]
        assert all(low <= each <= high for each in found)
        assert len(set(found)) > 10


def test_trials_at_the_boundary_take_no_slot(digits_home: Home):
    tuner, _ = open_search(digits_home, {**FORM, "seed": 26, "trials": 3})  # one slot
    feed = TrialFeed(tuner.book, tuner.config_of, 4)
    assert feed.suggest("first")["trial"] == 0
    assert feed.suggest("second") is None
    tuner.book.on_trial_start(0)
    assert feed.suggest("second") is None
    tuner.book.on_epoch(0, 1, 0.5)
    assert feed.suggest("second")["trial"] == 1
    tuner.book.on_trial_error(1, "its process died")
    assert feed.suggest("third")["trial"] == 2
    assert feed.all_drawn
    tuner.book.on_epoch(2, 1, 0.5)
    assert feed.suggest("fourth") is None  # so that Ray Tune keeps its processes
    for trial_id in ("first", "second", "third"):
        feed.on_trial_complete(trial_id)
    assert feed.suggest("fourth") == Searcher.FINISHED


def test_a_store_without_the_donor_begins_nothing(tmp_path):
    store = Store(tmp_path)
    assert not continue_from(store, "new", "previous", "missing", 1)
    assert not any(tmp_path.iterdir())
