"""The training loop in one process, with checkpoints in memory: result, resume, failure."""

import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.data.datasets import DatasetConfig
from trainables.engine.checkpoints import InMemory, Unrecoverable
from trainables.engine.loop import Options, Training, fit, train
from trainables.loading.decoded_cache import load_table
from trainables.loading.image_table import ImageTable
from trainables.numerics.distributed import World
from trainables.tasks.byol import Byol
from trainables.tasks.classify import Classify

ROOT = Path(__file__).parents[3]
SETTINGS = {"dataset": "digits", "backbone": "resnet10_slim", "epochs": 3, "batch_size": 16}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ImageTable:
    return load_table(DatasetConfig(type="digits", limit=100), tmp_path_factory.mktemp("cache"))


def config(**settings: Any) -> Classify.Config:
    return Classify.Config.model_validate(SETTINGS | settings)


@pytest.fixture(scope="module")
def trained(table: ImageTable) -> InMemory:
    checkpoints = InMemory()
    fit(Classify, config(), table, seed=1, checkpoints=checkpoints)
    return checkpoints


def test_fit_returns_what_the_training_gave(trained: InMemory, table: ImageTable) -> None:
    result = trained.result
    assert result is not None
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3]
    accuracy = [entry["val/accuracy"] for entry in result.history]
    assert accuracy[result.best_epoch - 1] == max(accuracy)
    assert set(result.test) == {"test/loss", "test/accuracy"}
    assert 0 <= result.test["test/accuracy"] <= 1 and math.isfinite(result.test["test/loss"])
    assert result.seconds > 0
    assert " encoder tensors from random initialisation" in result.facts["weight_transfer"]
    assert result.facts["warning"] == ""
    assert trained.states.keys() >= {3, result.best_epoch} and len(trained.states) <= 3
    assert trained.progress is not None
    features = trained.arrays["features/epoch_00001.npz"]
    assert features["features"].shape == (len(table.parts["val"]), 128)


def test_a_training_resumed_mid_way_equals_an_uninterrupted_one(
    trained: InMemory, table: ImageTable
) -> None:
    checkpoints = InMemory()
    options = Options(seed=1, world=World(0, 1, torch.device("cpu")))
    first = Training(Classify, config(), table, checkpoints, options)
    train(first, lambda entry: None, until=1)
    assert list(checkpoints.states) == [1] and checkpoints.result is None
    reported: list[float] = []
    second = Training(Classify, config(), table, checkpoints, options)
    train(second, lambda entry: reported.append(entry["epoch"]))
    result = second.finish()
    assert reported == [2, 3]
    if not torch.cuda.is_available():
        expected = trained.result
        assert expected is not None
        losses = [[e["train/loss"] for e in r.history] for r in (result, expected)]
        assert losses[0] == losses[1]
        assert (result.test, result.best_epoch) == (expected.test, expected.best_epoch)
        weights, others = checkpoints.states[3].weights, trained.states[3].weights
        assert all(torch.equal(weights[name], others[name]) for name in others)


def test_a_finished_training_only_tests_again(trained: InMemory, table: ImageTable) -> None:
    expected = trained.result
    assert expected is not None
    again = fit(Classify, config(), table, seed=1, checkpoints=trained)
    assert again.history == expected.history and again.test == expected.test


def test_another_seed_trains_another_model(trained: InMemory, table: ImageTable) -> None:
    other = fit(Classify, config(epochs=1), table, seed=2)
    assert trained.result is not None
    assert other.history[0]["train/loss"] != trained.result.history[0]["train/loss"]


def test_initialization_and_order_may_have_seeds_of_their_own(table: ImageTable) -> None:
    """The first weights are those of `init_seed`, all other draws those of `seed`."""

    def training(seed: int, init_seed: int | None) -> Training:
        options = Options(seed=seed, init_seed=init_seed)
        return Training(Classify, config(epochs=1), table, InMemory(), options)

    def state(one: Training) -> list[torch.Tensor]:
        return [value.clone() for value in one.trainable.model.state_dict().values()]

    def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    plain, mixed, swapped = training(1, None), training(0, 1), training(1, 0)
    assert equal(state(plain), state(mixed)) and not equal(state(plain), state(swapped))
    same = training(1, 1)
    for one in (plain, mixed, same):
        train(one, lambda entry: None)
    assert equal(state(plain), state(same)) and not equal(state(plain), state(mixed))


def test_a_learning_rate_that_is_too_high_is_unrecoverable_and_says_what_to_do(
    table: ImageTable,
) -> None:
    with pytest.raises(Unrecoverable) as error:
        fit(Classify, config(lr=1e30), table)
    message = str(error.value)
    assert message.startswith("the loss is not finite at epoch ") and "lower lr" in message
    assert "\n" not in message


def test_weights_that_do_not_fit_are_unrecoverable(tmp_path: Path, table: ImageTable) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(Unrecoverable, match=r"weights of other\.pt do not fit the encoder"):
        fit(Classify, config(weights=str(tmp_path / "other.pt")), table)


def test_the_loop_loads_neither_ray_nor_mlflow() -> None:
    names = {"ray", "mlflow", "orchestrator"}
    code = f"import sys, trainables.engine.loop\nprint({names} & {{*sys.modules}})"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout == b"set()\n"


def test_float16_counts_the_steps_that_it_leaves_out_and_resumes_bit_for_bit(
    table: ImageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = torch.amp.GradScaler
    large = partial(scaler, init_scale=2.0**40, growth_interval=3)  # so that it falls and rises
    monkeypatch.setattr(torch.amp, "GradScaler", large)
    half = config(precision="float16")
    whole, parts = InMemory(), InMemory()
    fit(Classify, half, table, seed=1, checkpoints=whole)
    assert whole.result is not None
    left_out = [entry["system/skipped_steps"] for entry in whole.result.history]
    assert left_out[0] > 3 and all(math.isfinite(e["train/loss"]) for e in whole.result.history)
    assert whole.result.facts["precision"].startswith("float16, ")
    first = Training(Classify, half, table, parts, Options(seed=1))
    first.resume()
    first.close_epoch(first.train_epoch() | first.evaluate("val"))
    scale = parts.states[1].optimizer["loss_scale"]["scale"]
    assert scale < 2.0**40
    fit(Classify, half, table, seed=1, checkpoints=parts)
    assert parts.result is not None
    assert [e["train/loss"] for e in parts.result.history] == [
        e["train/loss"] for e in whole.result.history
    ]
    for name, value in whole.states[3].weights.items():
        assert torch.equal(value, parts.states[3].weights[name])
    plain = InMemory()
    fit(Classify, config(precision="float32"), table, seed=1, checkpoints=plain)
    assert plain.result is not None and "loss_scale" not in plain.states[3].optimizer
    assert all("system/skipped_steps" not in entry for entry in plain.result.history)


BYOL = {**SETTINGS, "small_input": True, "hidden": 32, "projection": 8, "batch_size": 32}


def test_the_probed_epoch_with_the_best_neighbors_is_kept_and_chosen(table: ImageTable) -> None:
    checkpoints = InMemory()
    given = {**BYOL, "epochs": 5, "probe_every": 2}
    result = fit(Byol, Byol.Config.model_validate(given), table, seed=1, checkpoints=checkpoints)
    knn = {e["epoch"]: e["val/knn_accuracy"] for e in result.history if "val/knn_accuracy" in e}
    assert list(knn) == [1, 2, 4, 5]  # the first, every second, the last
    assert result.best_epoch == max(knn, key=lambda epoch: (knn[epoch], -epoch))
    assert result.best_epoch in checkpoints.states
    before = result.history[0]["initial/knn_accuracy"]
    assert ("below that of the initial weights" in result.facts["warning"]) == (
        knn[result.best_epoch] < before
    )


def test_the_probe_before_training_is_of_the_initial_weights_and_changes_none(
    table: ImageTable,
) -> None:
    kept = []
    for probe_every in (0, 1):
        checkpoints = InMemory()
        given = {**BYOL, "epochs": 1, "probe_every": probe_every, "select": "last"}
        config = Byol.Config.model_validate(given)
        fit(Byol, config, table, seed=1, checkpoints=checkpoints)
        kept.append(checkpoints.states[1])
    first, second = kept
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    assert "initial/knn_accuracy" not in first.history[0]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    untrained = Training(Byol, config, table, InMemory(), Options(1, World(0, 1, device)))
    seen = untrained.recorder.after_epoch(2, config, last=True)
    for name, value in seen.items():
        if not name.endswith("_collapsed"):
            assert second.history[0][name.replace("val/", "initial/")] == value


def test_mixing_and_an_average_of_the_weights_resume_bit_for_bit(table: ImageTable) -> None:
    given = config(mixup=0.2, cutmix=1.0, policy="randaugment", erase=0.25, ema=0.9)
    whole, parted = InMemory(), InMemory()
    fit(Classify, given, table, seed=1, checkpoints=whole)
    for until in (1, 2):
        train(
            Training(Classify, given, table, parted, Options(seed=1)), lambda figures: None, until
        )
    fit(Classify, given, table, seed=1, checkpoints=parted)
    weights, resumed = whole.states[3].weights, parted.states[3].weights
    assert set(weights) == set(resumed)
    assert all(torch.equal(value, resumed[name]) for name, value in weights.items())
    assert int(weights["steps"]) == 3 * (len(table.parts["train"]) // 16)
    assert whole.result is not None and parted.result is not None
    assert whole.result.test == parted.result.test


def test_the_next_stage_starts_from_the_average(table: ImageTable) -> None:
    checkpoints = InMemory()
    fit(Classify, config(ema=0.9), table, checkpoints=checkpoints)
    weights = checkpoints.states[3].weights
    carried = {name for name in weights if name.startswith("encoder.")}
    plain = Classify(config(), table.info).model.state_dict()
    assert carried == {name for name in plain if name.startswith("encoder.")}
    averaged = [n for n in carried if n.endswith("weight")]
    assert not any(torch.equal(weights[n], weights[f"trained.{n}"]) for n in averaged)


def test_a_result_says_that_one_class_is_predicted_everywhere(table: ImageTable) -> None:
    """A step so small that a head of zeros with one bias stays one."""
    given = config(epochs=1, lr=1e-9, train="head")
    training = Training(Classify, given, table, InMemory(), Options(seed=1))
    torch.nn.init.zeros_(training.trainable.model.head.weight)  # type: ignore[union-attr,arg-type]
    training.trainable.model.head.bias.data[3] = 1.0  # type: ignore[union-attr,index]
    train(training, lambda figures: None)
    facts = training.finish().facts
    assert facts["one_class"] == "3" and facts["warning"] == "predicts '3' everywhere"
