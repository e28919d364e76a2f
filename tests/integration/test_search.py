"""Searches with the real command, Ray Tune and MLflow: trained once, told truly, nothing left."""

import json
import re
import signal
from collections import Counter

import pytest

from orchestrator.storage.run_records import Store
from orchestrator.storage.trial_log import Trials
from tests.integration.command import Command, wait_for
from tests.ledger import held

STUDY = """
study: {name}
question: Which rate?
data: {{digits: {{type: digits, limit: 60}}}}
resources: {{cpus_per_worker: 1}}
stages:
  A:
    trainable: classify
    config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: 2, batch_size: 16, lr: 0.03}}
    search:
      trials: 4
      space: {{lr: {{log: [1.0e-5, 0.1]}}, batch_size: {{choice: [16, 32]}}}}
      scheduler: asha
      reduction_factor: 2
      then: {{seeds: [0]}}
  B: {{trainable: classify, after: A, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, train: head, epochs: 1, batch_size: 16, lr: 0.03}}}}
"""  # noqa: E501
FAILING = """
study: {name}
question: Does any rate do?
data: {{digits: {{type: digits, limit: 60}}}}
resources: {{cpus_per_worker: 1, workers: 2}}
stages:
  A:
    trainable: classify
    config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: 1, batch_size: 16}}
    search: {{algorithm: grid, space: {{lr: {{choice: [1.0e+30, 1.0e+31]}}}}, then: {{}}}}
  B: {{trainable: classify, after: A, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, train: head, epochs: 1, batch_size: 16}}}}
"""  # noqa: E501


POPULATION = """
study: {name}
question: Which rate, and when?
data: {{digits: {{type: digits, limit: 60}}}}
resources: {{cpus_per_worker: 1}}
stages:
  A:
    trainable: classify
    config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: 2, batch_size: 16, lr: 0.03}}
    search: {{trials: 3, space: {{lr: {{log: [1.0e-5, 0.1]}}}}, scheduler: pbt, then: {{seeds: [0], default: false}}}}
"""  # noqa: E501


def search_of(command: Command, study: str) -> dict:
    (found,) = [item for item in command.status()["studies"] if item["study"] == study]
    return {"study": found["state"], **found["searches"][0]}


def trials_of(command: Command, study: str = "searched") -> Trials:
    """Those of a study; none before it has its plan."""
    path = command.home / "plans" / f"{study}.json"
    plan = json.loads(path.read_text()) if path.is_file() else {"searches": [{"key": "none"}]}
    return Trials(command.home / "store" / plan["searches"][0]["key"])


@pytest.fixture(scope="module")
def searched(command):
    """A study whose driver was killed in the middle of its search, and that was submitted again."""
    file = command.study("searched", form=STUDY)
    first = command.start("submit", file)
    wait_for(lambda: sum(trial.state != "RUNNING" for trial in trials_of(command).all()) >= 1)
    command.driver().send_signal(signal.SIGKILL)
    first.communicate(timeout=600)
    before = {trial.index: trial for trial in trials_of(command).all()}
    after_kill = search_of(command, "searched")
    result = command.run("submit", file)
    return result, before, after_kill


def test_a_killed_search_is_told_truly_and_goes_on(searched, command):
    result, before, after_kill = searched
    assert (after_kill["study"], after_kill["state"]) == ("KILLED", "KILLED")
    assert result.returncode == 0, result.stdout + result.stderr
    after = {trial.index: trial for trial in trials_of(command).all()}
    assert sorted(after) == list(range(4))
    assert all(trial.state in ("FINISHED", "STOPPED") for trial in after.values())
    for index, trial in before.items():
        assert after[index].values == trial.values
        if trial.state in ("FINISHED", "STOPPED"):
            assert after[index] == trial


def test_every_epoch_of_every_trial_was_trained_once(searched, command):
    store = Store(command.home / "store")
    for trial in trials_of(command).all():
        texts = [path.read_text() for path in store.run(trial.key).logs().values()]
        done = Counter(re.findall(r"INFO epoch (\d+):", "".join(texts)))
        # the one that was at work when its driver died may do that epoch again
        assert max(done.values()) <= 2
        assert sum(done.values()) <= trial.epochs + 1 or trial.state == "FINISHED"


def test_mlflow_holds_the_search_with_its_trials_below_it(searched, command):
    client, said = command.mlflow(), search_of(command, "searched")
    assert said["state"] == "FINISHED"
    assert sum(said["counts"].values()) == said["trials"] == 4
    run = client.get_run(said["mlflow_run_id"])
    assert run.data.tags["orchestrator.kind"] == "search"
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["orchestrator.kind"] == "submission"
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    children = client.search_runs([run.info.experiment_id], filter_string=query)
    assert len(children) == 4
    known = {trial.key: trial for trial in trials_of(command).all()}
    for child in children:
        tags = child.data.tags
        trial = known.pop(tags["orchestrator.run_key"])
        outcome = {"FINISHED": "finished", "STOPPED": "stopped_early"}[trial.state]
        assert (child.info.status, tags["orchestrator.outcome"]) == ("FINISHED", outcome)
        assert tags["orchestrator.kind"] == "trial"
        assert float(child.data.params["lr"]) == trial.values["lr"]
        steps = [p.step for p in client.get_metric_history(child.info.run_id, "val/accuracy")]
        assert steps == list(range(1, trial.epochs + 1))
        assert not [name for name in child.data.metrics if name.startswith("test/")]
        assert tags["orchestrator.model_last"].startswith("models:/")
    files = {item.path for item in client.list_artifacts(run.info.run_id, "plots")}
    assert files == {"plots/best.png", "plots/parallel.png"}
    assert client.list_artifacts(run.info.run_id, "tables")[0].path == "tables/trials.csv"


def test_the_winner_and_the_stage_as_written_are_trained_and_compared(searched, command):
    result, _, _ = searched
    best = search_of(command, "searched")["best"]
    runs = command.runs("searched")
    child = [label for label in runs if label.startswith("B[A.lr=")]
    assert runs.keys() == {best["label"], "A_default", *child}
    assert len(child) == 1
    assert {run["state"] for run in runs.values()} == {"FINISHED"}
    rows = json.loads(command.ask("compare", "searched", "--json").stdout)["rows"]
    assert [row["label"] for row in rows] == [best["label"], "A_default", *child]
    assert f"best val/accuracy {100 * best['figure']:.2f} %" in result.stderr


def test_what_a_trial_said_is_found_by_its_label(searched, command):
    trial = trials_of(command).all()[0]
    said = command.ask("logs", f"searched/{trial.label}/0")
    assert said.returncode == 0, said.stderr
    assert "INFO epoch 1:" in said.stdout


def test_nothing_is_left_and_nothing_is_trained_again(searched, command):
    wait_for(lambda: not held(command.status()["ray"]))
    again = command.run("submit", command.study("searched", form=STUDY))
    assert again.returncode == 0
    assert "nothing to train" in again.stdout
    other = command.study("searched_too", form=STUDY)
    done = command.run("submit", other)
    assert done.returncode == 0, done.stdout + done.stderr
    assert search_of(command, "searched_too")["counts"] == search_of(command, "searched")["counts"]
    assert {run["state"] for run in command.runs("searched_too").values()} == {"FINISHED"}
    store = Store(command.home / "store")
    assert all(store.run(trial.key).attempt() <= 3 for trial in trials_of(command).all())


def test_a_search_without_a_success_says_the_first_cause_once(command):
    """Each trial has two workers of its own, which together take every CPU."""
    failed = command.run("submit", command.study("failing", form=FAILING))
    assert failed.returncode == 1
    cause = "no trial came to its end: the loss is not finite at epoch 1"
    said = [line for line in failed.stderr.splitlines() if cause in line]
    assert len(said) == 1, failed.stderr
    assert said[0].endswith("(2 of 2 trials)")
    assert "Traceback" not in failed.stdout + failed.stderr
    found = search_of(command, "failing")
    assert (found["study"], found["state"], found["counts"]) == ("FAILED", "FAILED", {"FAILED": 2})


def test_a_population_learns_and_its_best_can_be_trained_again(command):
    result = command.run("submit", command.study("population", form=POPULATION))
    assert result.returncode == 0, result.stdout + result.stderr
    trials = trials_of(command, "population").all()
    assert [(trial.state, trial.epochs) for trial in trials] == [("FINISHED", 2)] * 3
    assert [step["epoch"] for trial in trials for step in trial.lineage] == [1]
    found = search_of(command, "population")
    client = command.mlflow()
    run = client.get_run(found["mlflow_run_id"])
    query = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    children = client.search_runs([run.info.experiment_id], filter_string=query)
    by_key = {child.data.tags["orchestrator.run_key"]: child for child in children}
    assert by_key.keys() == {trial.key for trial in trials}
    for trial in trials:
        child = by_key[trial.key]
        told = [f"epoch {step['epoch']}: trial {step['trial']}" for step in trial.lineage]
        assert child.data.tags.get("orchestrator.lineage", "") == "; ".join(told)
        steps = [point.step for point in client.get_metric_history(child.info.run_id, "val/loss")]
        # its own epochs; of the one before it copied only what was sent by then
        assert steps == [1, 2] or (steps == [2] and told)
    best = max(trials, key=lambda trial: (trial.figure, -trial.index))
    (winner,) = command.runs("population").values()
    store = Store(command.home / "store")
    again = store.run(winner["key"]).result()["history"]
    learnt = store.run(best.key).history()
    assert [entry["val/loss"] for entry in again] == [entry["val/loss"] for entry in learnt]
    wait_for(lambda: not held(command.status()["ray"]))
