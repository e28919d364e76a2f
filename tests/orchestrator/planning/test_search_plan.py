"""Errors in a search are one line each; a search that has ended puts its winners in the study."""

import copy
import json
from typing import Any

import pytest
import yaml

from orchestrator.config.errors import StudyError
from orchestrator.config.search_schema import DEFAULT
from orchestrator.config.study_loader import from_mapping
from orchestrator.config.study_schema import Study
from orchestrator.config.yaml_loader import apply_setting
from orchestrator.planning.plan import make_plan, to_plain
from orchestrator.planning.run import Inputs
from orchestrator.planning.search_plan import apply_winners, pending_stages, plan_searches
from orchestrator.sampling.grid_search import points

STUDY = yaml.safe_load("""
study: s
data: {x: digits}
stages:
  P: {trainable: rotation, config: {dataset: x, epochs: 3}}
  A:
    trainable: classify
    after: P
    config: {dataset: x, epochs: 4}
    search:
      trials: 8
      space: {lr: {log: [1.0e-4, 1.0]}, batch_size: {choice: [32, 64]}, epochs: {uniform: [2, 9]}}
      then: {seeds: [0, 1]}
  B: {trainable: classify, after: A, config: {dataset: x, train: head}}
seeds: [0, 1]
""")


def changed(*settings: str) -> dict[str, Any]:
    mapping = copy.deepcopy(STUDY)
    for setting in settings:
        apply_setting(mapping, setting)
    return mapping


def errors(*settings: str) -> list[str]:
    with pytest.raises(StudyError) as error:
        from_mapping(changed(*settings))
    return error.value.errors


SPACE = "stages.A.search.space"
ERRORS_AT_THE_KEY = [
    (f"{SPACE}.lrr={{log: [1, 2]}}", "unknown key (did you mean 'lr'?)"),
    (f"{SPACE}.dataset={{choice: [x]}}", "'dataset' is the same in every trial: it cannot"),
    (f"{SPACE}.watch={{choice: [[a]]}}", "'watch' is the same in every trial"),
    (f"{SPACE}.changes={{choice: [[]]}}", "'changes' is the same in every trial"),
    (f"{SPACE}.lr={{}}", "needs one of `log: [low, high]`"),
    (f"{SPACE}.lr={{log: [1.0, 2.0], choice: [1.0]}}", "needs one of `log: [low, high]`"),
    (f"{SPACE}.lr={{log: [1.0, 0.1]}}", "log [1, 0.1] is reversed: the lower bound comes first"),
    (f"{SPACE}.lr={{uniform: [0.1, 0.1]}}", "uniform [0.1, 0.1] is empty"),
    (f"{SPACE}.lr={{log: [0.0, 1.0]}}", "log [0, 1]: a logarithmic range must be above 0"),
    (f"{SPACE}.lr={{log: [-1.0, 1.0]}}", "log [-1, 1]: a logarithmic range must be above 0"),
    (f"{SPACE}.lr={{choice: [0.1, 0.1]}}", "lists a value twice"),
    (f"{SPACE}.lr={{uniform: [-1.0, 1.0]}}", "input should be greater than 0, not -1.0"),
    (f"{SPACE}.train={{choice: [late, al]}}", "input should be 'head', 'late' or 'full', not 'al'"),
    (f"{SPACE}.train={{uniform: [1, 2]}}", "'train' is not a number: give it `choice: [...]`"),
    (f"{SPACE}.epochs={{uniform: [1.5, 2.5]}}", "'epochs' takes whole numbers"),
    (f"{SPACE}.backbone={{choice: [resnet18]}}", "parent and child stages must have the same"),
    ("stages.A.search.metric=val/acuracy", "(did you mean 'val/accuracy'?)"),
    ("stages.A.search.metric=test/accuracy", "choose on validation data"),
    ("stages.A.search.metric=val/miou", "classify does not report 'val/miou'"),
]


@pytest.mark.parametrize(("setting", "message"), ERRORS_AT_THE_KEY)
def test_an_error_names_the_key_that_is_set(setting: str, message: str) -> None:
    (fault,) = errors(setting)
    assert fault.startswith(setting.split("=")[0] + ": ")
    assert message in fault


ERRORS_ELSEWHERE = [
    ("stages.A.search.trials=0", "stages.A.search.trials: input should be greater than or equal"),
    (
        "stages.A.search.algorithm=pbt",
        "stages.A.search.algorithm: input should be 'random', 'grid'",
    ),
    ("stages.A.search.then=null", "stages.A.search: 'B' starts from the search's winner: set"),
    ("stages.A.search.mode=min", None),
    ("stages.A.search.metric=val/loss", "stages.A.search: mode max chooses the worst val/loss"),
    ("stages.A.search.algorithm=grid", "stages.A.search: algorithm grid cannot list the range of"),
    ("stages.A.search.trials=null", "stages.A.search: needs `trials:`"),
    ("stages.A.grid.lr=[0.1, 0.2]", "stages.A.grid: a stage with a `search` has no grid: write"),
    ("stages.A.seeds=[0, 1]", "stages.A.seeds: a stage with a `search` has no seeds: write"),
    (
        "stages.A.search.space.lr={log: [a, 1.0]}",
        "stages.A.search.space.lr.log[0]: input should be",
    ),
    (
        "stages.A.search.seed=5",
        "stages.A.seeds: a Run of seed s starts from its parent's Run of seed s",
    ),
    ("stages.A.search.then.seeds=[0]", "stages.B.seeds: a Run of seed s starts from its parent's"),
    ("stages.P.grid.lr=[0.1, 0.2]", "stages.A.after: a search starts from one configuration"),
    ("stages.A.search.space.lr.choice=[]", "stages.A.search.space.lr.choice: list should have at"),
    ("stages.A.search.then.best=2", None),
]
PBT = ["stages.A.search.scheduler=pbt", f"{SPACE}={{lr: {{log: [0.01, 1.0]}}}}"]
ERRORS_OF_PBT = [
    (["stages.A.search.trials=1"], "pbt needs at least two trials to exploit"),
    (["stages.A.search.then.best=2"], "the best of a population share weights: set"),
    (["stages.A.search.over=[P, A]"], "pbt changes values during one training: remove"),
    (["stages.A.search.interval_epochs=4"], "must be smaller than epochs, else PBT never exploits"),
    (["stages.A.config.changes=[{epoch: 2, lr: 0.1}]"], "pbt finds the `changes` itself"),
    (
        [f"{SPACE}.augment={{choice: [none, crop]}}"],
        "pbt changes values during training, possible for lr, momentum",
    ),
    (
        [f"{SPACE}.epochs={{uniform: [2, 4]}}"],
        "pbt changes values during training, possible for lr, momentum",
    ),
]


@pytest.mark.parametrize(("settings", "message"), ERRORS_OF_PBT)
def test_an_error_of_pbt_is_one_line(settings: list[str], message: str) -> None:
    (fault,) = errors(*PBT, *settings)
    assert fault.startswith("stages.A.search")
    assert message in fault
    from_mapping(changed(*PBT))


def test_a_population_of_another_size_is_another_search() -> None:
    def key(*settings: str) -> str:
        study, inputs = a_study(*settings)
        (search,) = plan_searches(study, inputs, make_plan(study, inputs))
        return search.key

    assert key() == key("stages.A.search.trials=4")
    assert key(*PBT) != key(*PBT, "stages.A.search.trials=4")


def test_the_winner_of_a_population_is_named_by_how_often_it_changed() -> None:
    study, inputs = a_study(*PBT)
    won = {"lr": 0.5, "changes": [{"epoch": 2, "lr": 0.25}, {"epoch": 3, "lr": 0.125}]}
    found = apply_winners(study, "A", [won])
    runs = [run for run in make_plan(found, inputs) if run.stage == "A"]
    assert {run.label for run in runs} == {"A[lr=0.5,changes=2]"}
    run = runs[0]
    assert [each["lr"] for each in run.config["changes"]] == [0.25, 0.125]


@pytest.mark.parametrize(("setting", "start"), ERRORS_ELSEWHERE)
def test_keys_that_do_not_fit_together_are_an_error(setting: str, start: str | None) -> None:
    if start is None:
        from_mapping(changed(setting))
    else:
        assert [fault for fault in errors(setting) if fault.startswith(start)]


def test_a_metric_that_is_not_reported_every_epoch_selects_no_trial() -> None:
    byol = [
        "stages.A.trainable=byol",
        "stages.A.after=null",
        "stages.A.config={dataset: x, backbone: resnet18}",
        "stages.A.search.metric=val/knn_accuracy",
    ]
    assert (
        "stages.A.search.metric: 'val/knn_accuracy' is not reported every epoch"
        in errors(*byol, "stages.A.config.probe_every=5")[0]
    )
    every = [*byol, "stages.A.config.probe_every=1"]
    from_mapping(changed(*every))
    selects = "stages.A.search.space={select: {choice: [%s, loss]}}"
    from_mapping(changed(*every, selects % "knn"))
    (fault,) = errors(*every, selects % "auto")
    assert "space.select: 'auto' is settled before a search begins: name `knn`" in fault


def test_the_name_of_the_stage_as_written_is_taken() -> None:
    mapping = changed()
    mapping["stages"]["A_default"] = mapping["stages"]["P"]
    with pytest.raises(
        StudyError, match="stages.A_default: this name is reserved for 'A' as it is written"
    ):
        from_mapping(mapping)


def test_a_grid_has_the_number_of_its_points() -> None:
    grid = ["stages.A.search.space={lr: {choice: [0.1, 0.2]}, batch_size: {choice: [8, 16, 32]}}",
            "stages.A.search.algorithm=grid"]  # fmt: skip
    assert "the grid has 6 points" in errors(*grid)[0]
    study = from_mapping(changed(*grid, "stages.A.search.trials=null"))
    assert study.searches["A"].count == 6
    drawn = list(points(study.searches["A"].space))
    assert drawn[:2] == [{"lr": 0.1, "batch_size": 8}, {"lr": 0.1, "batch_size": 16}]
    assert len(drawn) == 6


def a_study(*settings: str) -> tuple[Study, Inputs]:
    facts = {name: (lambda config: ("val/loss", True, "")) for name in ("rotation", "classify")}
    return from_mapping(changed(*settings)), Inputs({"x": "f"}, {}, lambda task, config: "c", facts)


def test_stages_downstream_of_a_search_are_planned_when_it_has_ended() -> None:
    study, inputs = a_study()
    runs = make_plan(study, inputs)
    assert {run.stage for run in runs} == {"P"}
    assert pending_stages(study) == ["A", "B"]
    (search,) = plan_searches(study, inputs, runs)
    assert search.seed == 0
    assert search.parent == runs[0]
    (said,) = to_plain(study, runs)["searches"]
    assert (said["stage"], said["behind"], said["after"], said["count"]) == ("A", ["B"], "P", 8)
    json.dumps(said)


def test_the_winners_are_trained_over_the_seeds_beside_the_stage_as_written() -> None:
    study, inputs = a_study()
    found = apply_winners(study, "A", [{"lr": 0.5, "batch_size": 32, "epochs": 7}])
    runs = make_plan(found, inputs)
    labels = {(run.label, run.seed) for run in runs if run.stage != "P"}
    winner = "A[lr=0.5,batch_size=32,epochs=7]"
    child = "B[A.lr=0.5,A.batch_size=32,A.epochs=7]"
    assert labels == {(label, s) for label in (winner, "A_default", child) for s in (0, 1)}
    assert pending_stages(found) == []
    parents = {run.label: run.parent_label for run in runs}
    assert (parents[child], parents["A_default"]) == (winner, "P")
    chosen = next(run for run in runs if run.label == winner)
    assert (chosen.config["lr"], chosen.config["epochs"]) == (0.5, 7)
    assert found.compare.stages == ["A", "A_default", "B"]
    assert found.compare.differences == [["A", "A_default"]]
    assert list(found.searches) == ["A"]


def test_a_trial_has_the_key_of_the_run_that_would_follow_it() -> None:
    study, inputs = a_study()
    runs = make_plan(study, inputs)
    (search,) = plan_searches(study, inputs, runs)
    values = {"lr": 1, "batch_size": 32, "epochs": 7}  # `1` of a real number is 1.0
    trial = search.run_of(values)
    follows = make_plan(apply_winners(study, "A", [values]), inputs)
    (same,) = [run for run in follows if run.key == trial.key]
    assert (same.stage, same.seed) == ("A", 0)


def test_a_winner_like_the_stage_as_written_is_not_trained_twice() -> None:
    study, inputs = a_study("stages.A.config.lr=0.5")
    found = apply_winners(study, "A", [{"lr": 0.5}])
    assert "A" + DEFAULT not in {stage.name for stage in found.stages}
    off, _ = a_study("stages.A.search.then.default=false")
    assert "A" + DEFAULT not in {
        stage.name for stage in apply_winners(off, "A", [{"lr": 0.5}]).stages
    }


def test_what_does_not_decide_the_selection_is_not_in_the_key() -> None:
    def key(*settings: str) -> str:
        study, inputs = a_study(*settings)
        return plan_searches(study, inputs, make_plan(study, inputs))[0].key

    base = key()
    for setting in ("trials=20", "stall_minutes=1.0", "then={best: 2, seeds: [0, 1]}"):
        assert key(f"stages.A.search.{setting}") == base
    for setting in ("search.scheduler=asha", "search.algorithm=random", "search.seed=1",
                    "config.lr=0.7", "search.space.lr={log: [0.1, 1.0]}"):  # fmt: skip
        assert key(f"stages.A.{setting}") != base
    assert key("stages.P.config.lr=0.7") != base


OVER = [
    "stages.A.search.over=[P, A]",
    "stages.A.search.space={P.momentum: {choice: [0.5, 0.9]}, lr: {log: [0.01, 1.0]}}",
]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (["stages.A.search.over=[Q, A]"], ".over: no stage 'Q' (stages: P, A, B)"),
        (["stages.A.search.over=[A]"], ".over: must list the stages that lead to 'A', and 'A'"),
        (["stages.A.search.over=[P, B]"], ".over: must list the stages that lead to 'A'"),
        (["stages.A.after=null"], ".over: 'A' does not start from 'P'"),
        (["stages.P.grid.lr=[0.1, 0.2]"], ".over: 'P' has its own `grid`"),
        (["stages.P.search={trials: 2, space: {lr: {log: [0.1, 1.0]}}, then: {}}"],
         ".over: 'P' has its own `search`"),
        (["stages.A.search.space={lr: {log: [0.1, 1.0]}}"],
         ".over: no parameter of 'P' is in the space: remove it here"),
        (["stages.A.search.then.best=2"], ".then.best: a search with `over` has one winner: set 1"),
        (["stages.A.search.space={P.momentun: {choice: [0.5]}}"],
         ".space.P.momentun: unknown key (did you mean 'momentum'?)"),
        (["stages.A.search.space={P.momentum: {choice: [2.0]}}"], ".space.P.momentum: input sh"),
        (["stages.A.search.space={P.lr: {log: [1.0, 2.0]}, PP.lr: {log: [1.0, 2.0]}}"],
         ".space.PP.lr: 'PP' is not searched together with 'A' (did you mean 'P'?)"),
        (["stages.A.search.space={P.small_input: {choice: [true]}}"],
         ".space.P.small_input: parent and child stages must have the same"),
        (["stages.A.search.over=[]"],
         ".space.P.momentum: 'P' is not searched together with 'A': name it in `over`"),
    ],
)  # fmt: skip
def test_an_error_of_over_is_one_line(settings: list[str], fault: str) -> None:
    found = errors(*OVER, *settings)
    assert [line for line in found if line.startswith(f"stages.A.search{fault}")], found


def test_the_name_of_a_stage_that_a_search_makes_is_taken() -> None:
    mapping = changed(*OVER)
    mapping["stages"]["P_for_A"] = mapping["stages"]["P"]
    with pytest.raises(
        StudyError,
        match="stages.P_for_A: this name is reserved for the result of the search of 'A'",
    ):
        from_mapping(mapping)


def test_a_trial_over_two_stages_is_the_chain_of_both() -> None:
    study, inputs = a_study(*OVER)
    (search,) = plan_searches(study, inputs, make_plan(study, inputs))
    assert search.parent is None
    assert search.kinds == {"P.momentum": float, "lr": float}
    first, second, third = (
        search.runs_of({"P.momentum": momentum, "lr": lr})
        for momentum, lr in [(0.5, 0.1), (0.5, 0.2), (0.9, 0.1)]
    )
    assert [run.label for run in first] == ["P[momentum=0.5]", "A[lr=0.1,P.momentum=0.5]"]
    assert first[1].parent == first[0].key
    assert first[0].config["momentum"] == 0.5
    assert first[0].key == second[0].key  # which is trained once for both
    assert len({first[1].key, second[1].key, third[1].key}) == 3
    assert third[0].key != first[0].key
    (said,) = to_plain(study, ())["searches"]
    assert (said["after"], said["behind"]) == (None, ["B"])


def test_the_winner_over_two_stages_starts_from_the_parent_of_its_trial() -> None:
    values = {"P.momentum": 0.5, "lr": 0.2}
    study, inputs = a_study(*OVER)
    (search,) = plan_searches(study, inputs, make_plan(study, inputs))
    found = apply_winners(study, "A", [values])
    assert [s.name for s in found.stages] == ["P", "P_for_A", "A", "A_default", "B"]
    runs = make_plan(found, inputs)
    parents = {run.label: run.parent_label for run in runs}
    won = "A[lr=0.2,P_for_A.momentum=0.5]"
    assert parents[won] == "P_for_A[momentum=0.5]"
    assert parents["A_default"] == "P"
    assert parents["B[A.lr=0.2,P_for_A.momentum=0.5]"] == won
    keys = {(run.stage, run.seed): run.key for run in runs}
    assert [run.key for run in search.runs_of(values)] == [keys["P_for_A", 0], keys["A", 0]]
    assert found.compare.stages == ["A", "A_default", "B"]
    (said,) = to_plain(found, runs)["searches"]
    assert said["after"] is None


def test_a_search_over_two_stages_waits_for_the_parent_of_the_first() -> None:
    mapping = changed(*OVER)
    mapping["stages"]["O"] = {
        "trainable": "rotation",
        "config": {"dataset": "x"},
        "search": {"trials": 2, "space": {"lr": {"log": [0.1, 1.0]}}, "then": {}},
    }
    mapping["stages"]["P"]["after"] = "O"
    study = from_mapping(mapping)
    _, inputs = a_study()
    (first,) = plan_searches(study, inputs, make_plan(study, inputs))
    assert first.stage.name == "O"
    study = apply_winners(study, "O", [{"lr": 0.5}])
    (second,) = plan_searches(study, inputs, make_plan(study, inputs))
    assert second.parent.label == "O[lr=0.5]"
    assert second.runs_of({"P.momentum": 0.5, "lr": 0.2})[0].parent == second.parent.key
