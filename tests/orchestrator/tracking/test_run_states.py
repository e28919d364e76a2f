"""The plan is joined with what MLflow has: the state of every Run, and why it waits."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.cli.runs import find_run
from orchestrator.config.errors import Refused
from orchestrator.planning.plan import FORMAT
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import Comparison, tables, unfinished
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import (
    RunState,
    Submission,
    comparison,
    newest,
    newest_of_any,
    records,
    run_states,
)


def planned(stage: str, parent: Run | None = None, seed: int = 0, **changes: Any) -> Run:
    """Return a Run of the plan whose key is its name."""
    values = {
        "stage": stage,
        "label": stage,
        "seed": seed,
        "key": f"{stage}-{seed}",
        "parent": parent.key if parent else None,
        "parent_label": parent.label if parent else None,
        "trainable": "classify",
        "select": "val/accuracy",
        "predicts": True,
        "artifacts": "",
        "config": {"dataset": "digits", "epochs": 4},
        "dataset": "f" * 16,
        "weights": None,
        "code": "c" * 16,
    }
    return Run(**{**values, **changes})


def child(
    run: Run, status: str, metrics: dict[str, float] | None = None, **tags: str
) -> TrackedRun:
    """Return a Run as MLflow has it."""
    tags = {"run_key": run.key, **tags}
    named = {"label": run.label, "seed": str(run.seed), "kind": "run", **tags}
    return TrackedRun(f"id-{run.label}-{run.seed}", status, named, metrics or {}, "1")


A = planned("A")
B = planned("B", A)
C = planned("C", B)


def states(runs: list[Run], children: list[TrackedRun]) -> list[str]:
    return [item.state for item in run_states(runs, children)]


def test_a_run_that_mlflow_does_not_know_waits() -> None:
    (state,) = run_states([A], [])
    assert state == RunState(A, "PENDING", None, {}, "", None)


@pytest.mark.parametrize("status", ["RUNNING", "FINISHED", "FAILED", "KILLED"])
def test_a_run_is_as_mlflow_says(status: str) -> None:
    progress = {"done": 2.0, "loss": 0.5, "seconds_left": None}
    tracked = child(A, status, progress=json.dumps(progress), reason="because")
    (state,) = run_states([A], [tracked])
    assert state == RunState(A, status, tracked.run_id, progress, "because", tracked)


@pytest.mark.parametrize("progress", [{}, {"progress": ""}])
def test_a_run_that_has_just_begun_has_no_progress(progress: dict[str, str]) -> None:
    (state,) = run_states([A], [child(A, "RUNNING", None, **progress)])
    assert state.progress == {}
    assert state.reason == ""


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_failure_blocks_children_and_their_children_and_says_which_it_was(status: str) -> None:
    found = run_states([A, B, C], [child(A, status)])
    assert [item.state for item in found] == [status, "BLOCKED", "BLOCKED"]
    assert found[1].reason == f"A seed 0 {status}"
    assert found[2].reason == "B seed 0 BLOCKED"
    assert found[1].run_id is None


@pytest.mark.parametrize("status", ["RUNNING", "FINISHED"])
def test_a_parent_that_has_not_failed_blocks_no_run(status: str) -> None:
    assert states([A, B, C], [child(A, status)]) == [status, "PENDING", "PENDING"]


def test_a_child_that_finished_earlier_stays_finished_when_its_parent_fails_now() -> None:
    assert states([A, B, C], [child(A, "FAILED"), child(B, "FINISHED")]) == [
        "FAILED",
        "FINISHED",
        "PENDING",
    ]


def test_a_failure_of_one_seed_blocks_no_other() -> None:
    other = planned("A", seed=1)
    runs = [A, other, B, planned("B", other, seed=1)]
    children = [child(A, "FAILED"), child(other, "FINISHED")]
    assert states(runs, children) == ["FAILED", "FINISHED", "BLOCKED", "PENDING"]


def test_one_run_under_two_labels_is_looked_up_by_its_label() -> None:
    twin = planned("T", key=A.key)
    children = [child(A, "FINISHED", {"test/accuracy": 0.5}), child(twin, "RUNNING")]
    found = run_states([A, twin], children)
    assert [(item.run.label, item.state) for item in found] == [("A", "FINISHED"), ("T", "RUNNING")]


def test_a_failure_under_one_label_is_a_failure_under_the_other() -> None:
    twin = planned("T", key=A.key)
    found = run_states([A, twin, B], [child(A, "FAILED", reason="diverged")])
    assert [item.state for item in found] == ["FAILED", "FAILED", "BLOCKED"]


def test_a_run_that_mlflow_has_but_the_plan_has_not_is_left_out() -> None:
    assert states([A], [child(A, "FINISHED"), child(B, "RUNNING")]) == ["FINISHED"]


def submission(children: list[TrackedRun]) -> Submission:
    tracked = TrackedRun("parent", "RUNNING", {}, {}, "1")
    return Submission(tracked, {}, run_states([A, B, C], children))


def test_records_carry_what_a_comparison_needs() -> None:
    one, two, _ = records(submission([child(A, "FINISHED", {"test/accuracy": 0.5})]))
    assert (one.stage, one.seed, one.state, one.run_id) == ("A", 0, "FINISHED", "id-A-0")
    assert (one.trainable, one.dataset, one.data_name) == ("classify", "f" * 16, "digits")
    assert (one.metrics, one.history) == ({"test/accuracy": 0.5}, {})
    assert (two.state, two.run_id, two.metrics) == ("PENDING", None, {})


def test_what_failed_and_what_it_blocks_is_named_under_the_table() -> None:
    spec = Comparison("test/accuracy", ("A", "C"), "label", (), {})
    found = records(submission([child(A, "FAILED", {"test/accuracy": 0.9})]))
    (table,) = tables(found, spec)
    assert [(row.label, row.n) for row in table.rows] == [("A", 0), ("C", 0)]
    assert unfinished(found, spec) == (
        "2 of 2 Runs not finished: A seed 0 (FAILED), C seed 0 (BLOCKED)"
    )


def test_the_comparison_is_what_the_plan_says() -> None:
    wanted = {"metric": "val/loss", "stages": ["A"], "rows": "stage", "plots": ["bars"]}
    plan = {"compare": wanted, "reference": {"A": 0.5}}
    expected = Comparison("val/loss", ("A",), "stage", ("bars",), {"A": 0.5})
    assert comparison(plan) == expected  # a plan of the time before there were differences
    for key in ("differences", "gains"):  # the second one is the name in older plans
        wanted[key] = [["A", "B"]]
        assert comparison(plan) == replace(expected, differences=(("A", "B"),))
        del wanted[key]


def test_two_runs_of_one_label_and_seed_are_told_apart_by_their_keys() -> None:
    """A version that showed `a b.pt` and `a-b.pt` alike has stored such plans."""
    twin = planned("A", key="other")
    children = [child(twin, "FAILED", reason="diverged"), child(A, "FINISHED")]
    children[1] = replace(children[1], run_id="id of A")
    first, second = run_states([A, twin], children)
    assert (first.state, first.run_id) == ("FINISHED", "id of A")
    assert (second.state, second.reason) == ("FAILED", "diverged")


@pytest.fixture
def tracker(mlflow_uri: str) -> Tracker:
    return Tracker(mlflow_uri)


def submit(tracker: Tracker, home: str, job: str, *runs: Run, **tags: str) -> str:
    """Store a submission of the study `shared` as the driver of a home does."""
    experiment = tracker.writer.experiment("shared")
    tags = {"kind": "submission", "home": home, "job": job, **tags}
    run_id = tracker.writer.create_run(experiment, "submission", tags)
    compare = {"metric": "test/accuracy", "stages": ["A"], "rows": "stage", "plots": []}
    plan = {"format": FORMAT, "study": "shared", "question": "?", "compare": compare,
            "reference": {}, "runs": [dict(vars(run)) for run in runs]}  # fmt: skip
    tracker.writer.log_text(run_id, json.dumps(plan), "plan.json")
    for run in runs:
        named = {"run_key": run.key, "label": run.label, "seed": str(run.seed), "kind": "run"}
        tracker.writer.create_run(experiment, run.name, named, run_id)
    time.sleep(0.002)  # MLflow sorts by milliseconds
    return run_id


def test_submissions_of_homes_that_share_a_server_do_not_mix(tracker: Tracker) -> None:
    theirs = replace(A, key="b" * 20)
    mine = submit(tracker, "mine", "job-1", A)
    submit(tracker, "theirs", "job-2", theirs)
    reader = tracker.reader
    found = newest(reader, "shared", "mine")
    assert found is not None and found.tracked.run_id == mine
    assert newest(reader, "shared", "new") is None
    other, owner = newest_of_any(reader, "shared", "new")
    assert other is not None and (other.tracked.tags["job"], owner) == ("job-2", "theirs")
    assert newest_of_any(reader, "shared", "mine")[1] == ""
    followed = reader.submission_of("shared", "job-1")
    assert followed is not None and followed.run_id == mine
    assert reader.submission_of("shared", "job-3") is None
    assert list(reader.newest_submissions("mine")["shared"]) == ["mine", "theirs"]
    assert find_run(reader, "shared/A/0", "mine")[0] == A.key
    assert find_run(reader, "shared/A/0", "theirs")[0] == theirs.key
    assert find_run(reader, "shared/A/0", "new")[0] == theirs.key
    assert find_run(reader, "b" * 5, "mine")[0] == theirs.key


def test_runs_of_earlier_submissions_are_found_by_key_and_by_id(tracker: Tracker) -> None:
    reader = tracker.reader
    first = submit(tracker, "mine", "job-1", replace(A, key="c1" * 10))
    submit(tracker, "mine", "job-2", replace(A, key="c2" * 10))
    (run,) = reader.children(reader.run(first))
    assert find_run(reader, "c1c1", "mine") == ("c1" * 10, run.run_id)
    assert find_run(reader, run.run_id, "mine") == ("c1" * 10, run.run_id)
    again = submit(tracker, "mine", "job-3", replace(A, key="c1" * 10))
    submit(tracker, "mine", "job-4", replace(A, key="c2" * 10))
    (newer,) = reader.children(reader.run(again))
    assert find_run(reader, "c1c1", "mine") == ("c1" * 10, newer.run_id)
    tracker.writer.set_status(run.run_id, "FINISHED")
    assert find_run(reader, "c1c1", "mine") == ("c1" * 10, run.run_id)  # it has a model
    for unknown in (first, "f" * 32, "c3", "C1", "%", "c1' or 'a'='a"):
        with pytest.raises(Refused, match="no Run "):
            find_run(reader, unknown, "mine")


def test_a_job_on_a_shared_cluster_belongs_to_the_home_that_sent_it(tracker: Tracker) -> None:
    there = {"cluster": "http://cluster:8265"}
    submit(tracker, "cluster", "job-1", A, submitter="laptop", **there)
    submit(tracker, "cluster", "job-2", A, submitter="desktop", **there)
    found = newest(tracker.reader, "shared", "laptop")
    assert found is not None and found.tracked.tags["job"] == "job-1"
    assert newest(tracker.reader, "shared", "cluster") is None
    submit(tracker, "cluster", "job-3", A, **there)  # an earlier version: anybody may have sent it
    found = newest(tracker.reader, "shared", "laptop")
    assert found is not None and found.tracked.tags["job"] == "job-3"


def test_a_name_that_several_runs_have_is_refused_with_their_keys(tracker: Tracker) -> None:
    submit(tracker, "mine", "job-1", A, replace(A, key="other"))
    with pytest.raises(Refused, match=r"several Runs are called shared/A/0: .*A-0, other"):
        find_run(tracker.reader, "shared/A/0", "mine")
    assert find_run(tracker.reader, "other", "mine")[0] == "other"


def test_runs_of_all_folds_are_of_one_data_set() -> None:
    runs = [
        planned(
            "A", seed=seed, dataset=f"{seed}" * 16, config={"dataset": f"x[folds=2,fold={seed}]"}
        )
        for seed in (0, 1)
    ]
    runs.append(planned("B"))
    tracked = TrackedRun("id", "FINISHED", {}, {}, "1")
    found = records(Submission(tracked, {}, run_states(runs, []), ()))
    assert [(r.fold, r.folds, r.data_name) for r in found] == [
        (0, 2, "x"), (1, 2, "x"), (None, 1, "digits"),
    ]  # fmt: skip
    assert found[0].dataset == found[1].dataset != found[2].dataset == "f" * 16


def test_runs_of_all_splits_are_of_one_data_set_and_know_their_ratio() -> None:
    runs = [
        planned("A", seed=seed, dataset=f"{seed}" * 16, config={"dataset": f"x[split={seed}]"})
        for seed in (0, 1)
    ]
    tracked = TrackedRun("id", "FINISHED", {}, {}, "1")
    found = records(Submission(tracked, {"splits": {"x": 0.25}}, run_states(runs, []), ()))
    assert [(r.fold, r.folds, r.split, r.test_ratio, r.data_name) for r in found] == [
        (None, 1, 0, 0.25, "x"), (None, 1, 1, 0.25, "x"),
    ]  # fmt: skip
    assert found[0].dataset == found[1].dataset
