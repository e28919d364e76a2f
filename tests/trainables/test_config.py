"""A configuration is right or refused by name; the learning rate follows its schedule."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trainables.config import as_plain
from trainables.tasks.registry import TRAINABLES
from trainables.training_config import EarlyStopping, TrainableConfig

SETTINGS = {
    "backbone": "resnet50",
    "small_input": True,
    "weights": "encoder.pt",
    "epochs": 7,
    "batch_size": 64,
    "optimizer": "adamw",
    "lr": 0.25,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "schedule": "step",
    "step_epochs": 3,
    "step_gamma": 0.5,
    "warmup_epochs": 0.5,
    "clip_grad_norm": 1.0,
    "precision": "float32",
    "early_stopping": {"metric": "val/accuracy", "patience": 4},
}


def config(**settings: Any) -> TrainableConfig:
    return TrainableConfig.model_validate({"dataset": "target"} | settings)


def errors(**settings: Any) -> list[tuple[str, str]]:
    """(dotted key, kind of fault) of everything that is wrong with the settings."""
    with pytest.raises(ValidationError) as caught:
        config(**settings)
    found = caught.value.errors()
    return [(".".join(str(part) for part in fault["loc"]), fault["type"]) for fault in found]


def test_a_data_set_is_all_that_must_be_said() -> None:
    assert config().dataset == "target"
    with pytest.raises(ValidationError, match="dataset"):
        TrainableConfig.model_validate({})


def test_an_unknown_key_is_refused_at_any_depth() -> None:
    assert errors(epocs=3) == [("epocs", "extra_forbidden")]
    stopping = {"patinece": 3}
    assert errors(early_stopping=stopping) == [("early_stopping.patinece", "extra_forbidden")]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset", 3),
        ("epochs", "20"),
        ("epochs", 20.0),
        ("epochs", True),
        ("batch_size", 2.5),
        ("lr", "0.1"),
        ("lr", True),
        ("lr", None),
        ("weights", None),
        ("backbone", "vit"),
        ("optimizer", "SGD"),
        ("schedule", None),
        ("early_stopping", 10),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_not_converted(key: str, value: object) -> None:
    assert [name for name, _ in errors(**{key: value})] == [key]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "key",
    ["lr", "momentum", "weight_decay", "step_gamma", "warmup_epochs", "clip_grad_norm"],
)
def test_numbers_are_finite(key: str, value: float) -> None:
    assert [name for name, _ in errors(**{key: value})] == [key]


@pytest.mark.parametrize(
    ("key", "allowed", "refused"),
    [
        ("epochs", 1, 0),
        ("epochs", 1_000_000, 1_000_001),
        ("batch_size", 2, 1),
        ("lr", 1e-9, 0.0),
        ("momentum", 0.0, -0.1),
        ("momentum", 0.99, 1.0),
        ("weight_decay", 0.0, -1e-6),
        ("step_epochs", 1, 0),
        ("step_gamma", 1.0, 1.1),
        ("step_gamma", 1e-6, 0.0),
        ("warmup_epochs", 0.0, -1.0),
        ("clip_grad_norm", 0.1, 0.0),
        ("early_stopping", {"patience": 1}, {"patience": 0}),
    ],
)
def test_ranges_end_where_they_say(key: str, allowed: object, refused: object) -> None:
    assert as_plain(config(**{key: allowed}))[key] == (
        allowed if not isinstance(allowed, dict) else {"metric": None} | allowed
    )
    assert [name.split(".")[0] for name, _ in errors(**{key: refused})] == [key]


def test_all_faults_are_reported_at_once() -> None:
    found = errors(epocs=1, lr="high", momentum=2.0)
    assert sorted(name for name, _ in found) == ["epocs", "lr", "momentum"]


def test_a_configuration_cannot_be_changed() -> None:
    settled = config(early_stopping={"patience": 2})
    with pytest.raises(ValidationError, match="frozen"):
        settled.lr = 1.0  # type: ignore[misc]
    assert isinstance(settled.early_stopping, EarlyStopping)
    with pytest.raises(ValidationError, match="frozen"):
        settled.early_stopping.patience = 3  # type: ignore[misc]


def test_warmup_must_end_before_training_does() -> None:
    with pytest.raises(ValidationError, match="warmup_epochs is 3 but epochs is 3"):
        config(epochs=3, warmup_epochs=3.0)
    assert config(epochs=3, warmup_epochs=2.9).warmup_epochs == 2.9


def test_imagenet_weights_need_the_first_layers_they_were_trained_with() -> None:
    with pytest.raises(ValidationError, match="need `small_input: false`"):
        config(small_input=True, weights="imagenet")
    assert config(small_input=False, weights="imagenet").weights == "imagenet"
    assert config(small_input=True, weights="other.pt").weights == "other.pt"


def test_cosine_falls_from_all_over_half_to_nothing() -> None:
    rate = config(schedule="cosine", epochs=10, lr=0.4).learning_rate
    assert [rate(at) for at in (0, 5, 10)] == pytest.approx([0.4, 0.2, 0.0], abs=1e-12)
    assert rate(2.5) == pytest.approx(0.4 * (2 + 2**0.5) / 4)


def test_step_drops_by_gamma_after_every_so_many_epochs() -> None:
    rate = config(schedule="step", epochs=9, lr=0.8, step_epochs=3, step_gamma=0.5).learning_rate
    wanted = {0: 0.8, 2.999: 0.8, 3: 0.4, 5.999: 0.4, 6: 0.2, 9: 0.1}
    assert [rate(at) for at in wanted] == pytest.approx(list(wanted.values()))


def test_constant_is_constant() -> None:
    rate = config(schedule="constant", epochs=4, lr=0.3).learning_rate
    assert {rate(at) for at in (0, 1.5, 4)} == {0.3}


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_warmup_rises_in_a_straight_line_to_the_learning_rate(schedule: str) -> None:
    settled = config(schedule=schedule, epochs=10, warmup_epochs=2.0, lr=0.4)
    assert 0 < settled.learning_rate(0) < 0.001
    assert settled.learning_rate(1) == pytest.approx(0.2, rel=1e-3)
    assert settled.learning_rate(1.9999) == pytest.approx(0.4, rel=1e-3)
    assert settled.learning_rate(2) == 0.4


def test_cosine_after_warmup_still_ends_at_nothing() -> None:
    rate = config(schedule="cosine", epochs=10, warmup_epochs=2.0, lr=0.4).learning_rate
    assert [rate(6), rate(10)] == pytest.approx([0.2, 0.0], abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["cosine", "step", "constant"]),
    st.integers(1, 1000),
    st.floats(0, 1),
    st.floats(1e-8, 1e3),
    st.floats(0, 1),
)
def test_the_learning_rate_stays_between_zero_and_the_configured_one(
    schedule: str, epochs: int, warmup: float, lr: float, at: float
) -> None:
    settled = config(schedule=schedule, epochs=epochs, lr=lr, warmup_epochs=warmup * 0.99 * epochs)
    assert 0 <= settled.learning_rate(at * epochs) <= lr


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 50), st.floats(0, 1), st.floats(0, 1))
def test_cosine_never_rises_after_warmup(epochs: int, one: float, other: float) -> None:
    settled = config(schedule="cosine", epochs=epochs, warmup_epochs=epochs / 4)
    first, second = sorted(epochs * (0.25 + 0.75 * part) for part in (one, other))
    assert settled.learning_rate(first) >= settled.learning_rate(second)


@pytest.mark.parametrize("name", TRAINABLES)
@pytest.mark.parametrize("settings", [{}, SETTINGS], ids=["defaults", "all set"])
def test_a_configuration_survives_json(name: str, settings: dict[str, Any]) -> None:
    kind = TRAINABLES[name].Config
    if name == "segment":  # its network has a backbone and first layers of its own
        settings = {"network": "deeplabv3"} | {
            k: v for k, v in settings.items() if k != "small_input"
        }
    before = kind.model_validate({"dataset": "target"} | settings)
    plain = as_plain(before)
    assert kind.model_validate(json.loads(json.dumps(plain))) == before
    assert set(plain) == set(kind.model_fields)
    assert {key: plain[key] for key in settings} == settings


@pytest.mark.parametrize("name", TRAINABLES)
def test_every_trainable_refuses_keys_it_does_not_know(name: str) -> None:
    with pytest.raises(ValidationError, match="no_such_key"):
        TRAINABLES[name].Config.model_validate({"dataset": "target", "no_such_key": 1})


CHANGES = [{"epoch": 3, "lr": 0.5}, {"epoch": 5, "lr": 0.25, "batch_size": 32}]


def test_a_change_holds_from_its_epoch_on_until_the_next() -> None:
    config = TrainableConfig(dataset="d", epochs=6, lr=1.0, schedule="constant", changes=CHANGES)
    assert [config.at(epoch).lr for epoch in range(1, 7)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert [config.at(epoch).batch_size for epoch in (1, 4, 5)] == [128, 128, 32]
    assert config.at(5).learning_rate(4.5) == 0.25
    assert TrainableConfig.model_validate(as_plain(config)) == config


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ([{"epoch": 1, "lr": 0.1}], "greater than or equal to 2"),
        ([{"epoch": 7, "lr": 0.1}], "epoch 7 comes after the last one, 6"),
        ([{"epoch": 3, "lr": 0.1}, {"epoch": 3, "lr": 0.2}], r"must rise, not \[3, 3\]"),
        ([{"epoch": 3}], "at epoch 3 nothing changes"),
        ([{"epoch": 3, "lr": 0.0}], "greater than 0"),
        ([{"epoch": 3, "epochs": 9}], "Extra inputs are not permitted"),
        ([{"epoch": 3, "batch_size": 6}], r"batch_size 6 cannot be passed in 4 parts"),
    ],
)
def test_a_change_that_cannot_be(changes: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        TrainableConfig(dataset="d", epochs=6, accumulate=4, changes=changes)
