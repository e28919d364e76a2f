"""A Run's key is the hash of what decides its weights, and a plan says why a Run is not done."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.study_loader import from_mapping
from orchestrator.config.study_schema import VARIED, Variant
from orchestrator.config.yaml_loader import apply_setting
from orchestrator.execution.task import Task
from orchestrator.planning import run as planning_run
from orchestrator.planning.plan import (
    FORMAT,
    UnknownPlan,
    from_plain,
    make_plan,
    plan_digest,
    plan_states,
    to_plain,
)
from orchestrator.planning.run import Inputs, Run, label_texts

STUDY = yaml.safe_load("""
study: s
data: {x: digits, z: digits}
stages:
  P: {trainable: rotation, config: {dataset: x}}
  A: {trainable: classify, after: P, config: {dataset: x}}
""")


def versions(codes: dict[str, str]) -> Callable[[str, Mapping[str, Any]], str]:
    """The same version for every configuration of a trainable."""
    return lambda task, config: codes[task]


INPUTS = Inputs(
    fingerprints={"x": "f" * 16, "y": "f" * 16, "z": "e" * 16},
    weights={},
    code=versions({"rotation": "c1", "classify": "c2"}),
    facts={
        "rotation": lambda config: ("val/accuracy", False, ""),
        "classify": lambda config: ("val/accuracy", True, ""),
    },
)


def plan(*settings: str, **inputs: Any) -> tuple[Run, ...]:
    """The Runs of STUDY with some values replaced."""
    mapping = copy.deepcopy(STUDY)
    for setting in settings:
        apply_setting(mapping, setting)
    return make_plan(from_mapping(mapping), replace(INPUTS, **inputs))


def keys(*settings: str, **inputs: Any) -> list[str]:
    return [run.key for run in plan(*settings, **inputs)]


P, A = keys()


def test_a_key_is_the_same_for_the_same_inputs_and_is_a_plain_word() -> None:
    assert keys() == [P, A]
    assert P != A
    assert all(len(key) == 20 and set(key) <= set("0123456789abcdef") for key in (P, A))


@pytest.mark.parametrize(
    ("settings", "inputs"),
    [
        ([], {"code": versions({"rotation": "c1", "classify": "changed"})}),
        (["stages.A.config.lr=0.06"], {}),
        (["stages.A.config.early_stopping={patience: 3}"], {}),
        (["stages.A.config.dataset=z"], {}),
        (["stages.A.trainable=rotation"], {}),
    ],
)
def test_what_changes_a_child_changes_its_key_alone(
    settings: list[str], inputs: dict[str, Any]
) -> None:
    parent, child = keys(*settings, **inputs)
    assert parent == P
    assert child != A


@pytest.mark.parametrize(
    ("settings", "inputs"),
    [
        (["stages.P.config.epochs=21"], {}),
        (["stages.P.config.dataset=z"], {}),
        (["seeds=[1]"], {}),
        ([], {"code": versions({"rotation": "changed", "classify": "c2"})}),
    ],
)
def test_what_changes_a_parent_changes_its_children_too(
    settings: list[str], inputs: dict[str, Any]
) -> None:
    parent, child = keys(*settings, **inputs)
    assert parent != P
    assert child != A


def test_data_that_changed_changes_every_key() -> None:
    assert not set(keys(fingerprints={"x": "0" * 16})) & {P, A}


def test_a_stage_without_its_parent_is_another_run() -> None:
    assert keys("stages.A.after=null")[1] != A


def test_another_trainable_of_the_same_config_and_code_is_another_run() -> None:
    study = from_mapping(STUDY)
    stage = replace(study.stages[0], trainable="classify")
    inputs = replace(INPUTS, code=lambda task, config: "c1")
    (run,) = make_plan(replace(study, stages=(stage,)), inputs)
    assert run.key != P


@pytest.mark.parametrize(
    "setting",
    [
        "resources={workers: 4, max_failures: 0}",
        "compare={metric: val/loss, rows: stage, plots: []}",
        "question=another one",
        "reference={A: 0.5}",
        "study=renamed",
        "stages.A.config.lr=0.05",  # the default, spelt out
        "stages.A.config.weight_decay=5.0e-04",
    ],
)
def test_what_does_not_decide_the_weights_is_not_in_the_key(setting: str) -> None:
    assert keys(setting) == [P, A]


def test_the_name_of_the_data_and_of_the_stage_are_not_in_the_key() -> None:
    renamed = ["data={y: digits}", "stages.P.config.dataset=y", "stages.A.config.dataset=y"]
    assert keys(*renamed) == [P, A]
    moved = "stages={Q: {trainable: rotation, config: {dataset: x}}}"
    assert keys(moved) == [P]


def test_a_weights_file_counts_by_its_content_not_by_where_it_lies(tmp_path: Path) -> None:
    files = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for file in files:
        file.touch()

    def key(file: Path, sha256: str) -> str:
        return keys(f"stages.P.config.weights={file}", weights={str(file): sha256})[0]

    assert key(files[0], "1" * 64) == key(files[1], "1" * 64)
    assert len({P, key(files[0], "1" * 64), key(files[0], "2" * 64)}) == 3
    assert keys("stages.P.config.weights=imagenet")[0] not in (P, key(files[0], "1" * 64))


def test_a_child_of_seed_s_starts_from_its_parent_of_seed_s() -> None:
    runs = plan("seeds=[0, 1, 2]", "stages.A.seeds=[2, 0]")
    parents = {run.key: run for run in runs if run.stage == "P"}
    children = [run for run in runs if run.stage == "A"]
    assert [child.seed for child in children] == [2, 0]
    for child in children:
        assert child.parent is not None
        assert parents[child.parent].seed == child.seed


def test_labels_carry_the_grids_of_the_stage_and_of_its_parents() -> None:
    runs = plan(
        "stages.P.grid.lr=[0.1, 0.2]",
        "stages.A.grid.epochs=[3, 4]",
        "stages.C={trainable: classify, after: A, config: {dataset: x}}",
    )
    labels = [run.label for run in runs]
    assert labels[:2] == ["P[lr=0.1]", "P[lr=0.2]"]
    assert labels[2:6] == [f"A[epochs={n},P.lr={lr}]" for n in (3, 4) for lr in (0.1, 0.2)]
    assert labels[6:] == [f"C[A.epochs={n},P.lr={lr}]" for n in (3, 4) for lr in (0.1, 0.2)]
    by_key = {run.key: run.label for run in runs}
    assert all(run.parent_label == by_key[run.parent] for run in runs if run.parent)


def test_runs_come_parents_first_and_seeds_innermost() -> None:
    runs = plan("stages.P.grid.lr=[0.1, 0.2]", "seeds=[5, 3]")
    order = [(run.label, run.seed) for run in runs if run.stage == "P"]
    assert order == [("P[lr=0.1]", 5), ("P[lr=0.1]", 3), ("P[lr=0.2]", 5), ("P[lr=0.2]", 3)]
    assert [run.name for run in runs[:2]] == ["P[lr=0.1] seed 5", "P[lr=0.1] seed 3"]
    assert [run.stage for run in runs] == ["P"] * 4 + ["A"] * 4
    assert [run.label for run in runs[4:]] == ["A[P.lr=0.1]"] * 2 + ["A[P.lr=0.2]"] * 2


@pytest.mark.parametrize("values", ["[0.12345678, 0.12345679]", "[1000000.0, 1000001.0]"])
def test_values_that_differ_in_a_late_digit_have_different_labels(values: str) -> None:
    one, two, *_ = plan(f"stages.P.grid.lr={values}")
    assert one.key != two.key
    assert one.label != two.label


def test_ten_thousand_runs_have_different_keys_and_names() -> None:
    rates = [n / 1000 for n in range(1, 51)]
    runs = plan(f"stages.P.grid.lr={rates}", f"seeds={list(range(100))}")
    assert len(runs) == 10_000
    assert len({run.key for run in runs}) == 10_000
    assert len({(run.label, run.seed) for run in runs}) == 10_000


def why(now: Run, before: Run | None, state: Any = ("new", "")) -> str:
    previous = [before] if before else []
    (planned,) = plan_states([now], lambda key: state, previous)
    assert planned.run is now
    assert planned.state == state[0]
    return planned.why


@pytest.mark.parametrize(
    ("settings", "inputs", "reason"),
    [
        ([], {}, "not started yet"),
        (["stages.A.config.lr=0.1"], {}, "config changed: lr 0.05 → 0.1"),
        (
            ["stages.A.config.lr=0.1", "stages.A.config.epochs=3"],
            {},
            "config changed: epochs 20 → 3, config changed: lr 0.05 → 0.1",
        ),
        ([], {"code": versions({"rotation": "c1", "classify": "new"})}, "code changed"),
        (["stages.A.config.dataset=z"], {}, "data changed"),
        (["stages.P.config.lr=0.1"], {}, "parent changed"),
        (["stages.A.after=null"], {}, "parent changed"),
        ([], {"fingerprints": {"x": "0"}}, "data changed, parent changed"),
    ],
)
def test_a_run_that_is_not_done_says_what_changed(
    settings: list[str], inputs: dict[str, Any], reason: str
) -> None:
    before = plan()[1]
    now = plan(*settings, **inputs)[1]
    assert why(now, before) == reason
    assert ("changed" in reason) == (now.key != before.key)


def test_a_weights_file_of_another_content_is_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    file.touch()
    setting = f"stages.P.config.weights={file}"
    before, now = (plan(setting, weights={str(file): sha})[0] for sha in ("1", "2"))
    assert why(now, before) == "weights file changed"


def test_a_run_that_no_plan_had_before_is_the_first() -> None:
    assert why(plan()[0], None) == "first time"


@pytest.mark.parametrize("state", [("done", "4 epochs, best 3"), ("resumable", "2 epochs done")])
def test_what_the_store_holds_wins_over_what_the_last_plan_said(state: tuple[str, str]) -> None:
    now, before = plan("stages.A.config.lr=0.1")[1], plan()[1]
    assert why(now, before, state) == state[1]
    assert why(now, None, state) == state[1]


def test_a_plan_survives_json() -> None:
    mapping = {**STUDY, "question": "Où?", "reference": {"A": 0.5}, "seeds": [0, 1]}
    study = from_mapping(mapping)
    runs = make_plan(study, INPUTS)
    text = json.dumps(to_plain(study, runs))
    assert from_plain(json.loads(text)) == runs
    stored = json.loads(text)
    assert stored["question"] == "Où?"
    assert stored["reference"] == {"A": 0.5}
    assert stored["compare"]["stages"] == ["A"]


def test_compared_stages_are_those_asked_for_else_the_leaves() -> None:
    study = from_mapping({**STUDY, "compare": {"stages": ["P"]}})
    assert to_plain(study, ())["compare"]["stages"] == ["P"]
    assert to_plain(from_mapping(STUDY), ())["compare"]["stages"] == ["A"]


@pytest.mark.parametrize("version", [{"format": FORMAT + 1}, {}])
def test_a_plan_of_another_version_is_refused(version: dict[str, int]) -> None:
    with pytest.raises(UnknownPlan, match="plan of study s was written by another version"):
        from_plain({**version, "study": "s", "runs": []})


def test_the_digest_names_the_plan() -> None:
    runs, study = plan("seeds=[0, 1]"), from_mapping(STUDY)
    assert plan_digest(study, runs, INPUTS) == plan_digest(
        from_mapping(STUDY), plan("seeds=[0, 1]"), INPUTS
    )
    asked = plan_digest(from_mapping(STUDY | {"question": "Another?"}), runs, INPUTS)
    others = [
        (*runs[:place], replace(runs[place], key="0" * 20), *runs[place + 1 :])
        for place in range(len(runs))
    ]
    digests = [plan_digest(study, item, INPUTS) for item in (runs, runs[:-1], *others)]
    assert len({asked, *digests}) == len(runs) + 3


@pytest.mark.parametrize(
    ("settings", "inputs"),
    [
        (["stages.A.config.lr=0.3"], {}),
        (["stages.P.config.epochs=7"], {}),
        (["stages.A.grid={lr: [0.1, 0.2]}"], {}),
        ([], {"fingerprints": {"x": "0" * 16}}),
        ([], {"code": versions({"rotation": "0" * 16, "classify": "0" * 16})}),
    ],
)
def test_the_digest_names_what_waits_for_a_search_too(
    settings: list[str], inputs: dict[str, Any]
) -> None:
    """No Run of it is planned yet, but another one is not the same submission."""
    search = "stages.P.search={metric: val/accuracy, trials: 2, space: {lr: {log: [0.01, 0.1]}}, "
    search += "then: {best: 1, seeds: [0]}}"
    found = []
    for changes, given in (([], {}), (settings, inputs)):
        mapping = copy.deepcopy(STUDY)
        for setting in (search, *changes):
            apply_setting(mapping, setting)
        study = from_mapping(mapping)
        assert make_plan(study, INPUTS) == ()
        found.append(plan_digest(study, (), replace(INPUTS, **given)))
    assert found[0] != found[1]


def grid_of_weights(*names: str) -> list[str]:
    """Return the labels of a stage that starts from files of these names, one Run a file."""
    study = from_mapping({**STUDY, "stages": {"P": STUDY["stages"]["P"]}})
    (stage,) = study.stages
    config = stage.variants[0].config
    variants = tuple(
        Variant((("weights", name),), config.model_copy(update={"weights": name})) for name in names
    )
    study = replace(study, stages=(replace(stage, variants=variants),))
    inputs = replace(INPUTS, weights={name: f"sha of {name}" for name in names})
    runs = make_plan(study, inputs)
    assert len({run.key for run in runs}) == len(names)
    return [run.label for run in runs]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("a b.pt", "a-b.pt"), ["a%20b.pt", "a-b.pt"]),
        (("a b.pt", "a/b.pt", "c d.pt"), ["a%20b.pt", "a%2Fb.pt", "c-d.pt"]),
        (("a%20b.pt", "a b.pt"), ["a-20b.pt", "a-b.pt"]),
        (("a%20b.pt", "a b.pt", "a-20b.pt", "a-b.pt"),
         ["a%2520b.pt", "a%20b.pt", "a-20b.pt", "a-b.pt"]),
        (("\u212b.pt", "\u00c5.pt"), ["%E2%84%AB.pt", "%C3%85.pt"]),  # Angstrom sign, A with ring
        (("a,b=c].pt", "a-b-c-.pt"), ["a%2Cb%3Dc%5D.pt", "a-b-c-.pt"]),
    ],
)  # fmt: skip
def test_values_that_look_alike_have_labels_that_do_not(
    names: tuple[str, ...], shown: list[str]
) -> None:
    assert grid_of_weights(*names) == [f"P[weights={text}]" for text in shown]


@pytest.mark.parametrize(
    "values",
    [
        ["1", 1],
        ["True", True],
        ["None", None],
        ["0.1", 0.1],
        ["[1, 2]", [1, 2]],
        ["x" * 5000 + "a", "x" * 5000 + "b"],
        ["\ud800", "-", " "],
        ["'1'", 1, "1", "%271%27"],
    ],
)
def test_values_of_any_kind_are_told_apart_in_short_labels(values: list[Any]) -> None:
    texts = [dict(point)["v"] for point in label_texts([(("v", value),) for value in values])]
    assert len(set(texts)) == len(values)
    assert all(len(text) < 300 and not set(text) & set(",[]=/ ") for text in texts)


def test_a_run_that_the_last_plan_has_under_another_label_is_found_by_its_key() -> None:
    (now, _) = plan()
    stranger = replace(now, key="0" * 20, code="other")
    renamed = replace(now, label="P[old]")
    (planned,) = plan_states([now], lambda key: ("new", ""), [stranger, renamed])
    assert planned.why == "not started yet"


def test_seeds_draw_what_the_study_says() -> None:
    """Seed 0 is the same Run whatever seeds vary, and what they do not vary is that of seed 0."""
    both, written = plan("seeds=[0, 1]"), plan("seeds={values: [0, 1], vary: [order, init]}")
    init, order = (plan(f"seeds={{values: [0, 1], vary: [{w}]}}") for w in ("init", "order"))
    assert [run.key for run in both] == [run.key for run in written]
    firsts = [{run.key for run in runs if run.seed == 0} for runs in (both, init, order)]
    assert firsts[0] == firsts[1] == firsts[2]
    seconds = [{run.key for run in runs if run.seed == 1} for runs in (both, init, order)]
    assert len(set.union(*seconds)) == 6
    tasks = [Task.of(runs[1], Path("t"), Path("s")) for runs in (both, init, order)]
    drawn = [(task.drawn("init"), task.drawn("order")) for task in tasks]
    assert drawn == [(1, 1), (1, 0), (0, 1)]
    assert VARIED == planning_run.VARIED


def test_a_stored_plan_says_what_seeds_draw_where_it_is_not_both() -> None:
    mapping = {**STUDY, "seeds": {"values": [0, 1], "vary": ["init"]}}
    study = from_mapping(mapping)
    runs = make_plan(study, INPUTS)
    plain = json.loads(json.dumps(to_plain(study, runs)))
    assert [run["vary"] for run in plain["runs"]] == [["init"]] * 4
    assert from_plain(plain) == runs
    assert all("vary" not in run for run in to_plain(from_mapping(STUDY), plan())["runs"])
    assert plan_digest(study, runs, INPUTS) != plan_digest(study, plan("seeds=[0, 1]"), INPUTS)
