"""Names in MLflow: each stands once, and Runs tagged by earlier versions are still read."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution.worker import train
from orchestrator.planning.plan import FORMAT
from orchestrator.reporting.comparison import State
from orchestrator.storage.files import read_json, write_json
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import load, run_states
from orchestrator.tracking.run_sync import RunEnd
from orchestrator.tracking.sync import MlflowSync
from orchestrator.tracking.tags import RENAMED, Kind, Tag, current_names, from_mlflow, to_mlflow
from tests.conftest import ALONE, Tasks
from tests.orchestrator.tracking.test_run_states import child, planned

ROOT = Path(__file__).parents[3]
HAND_OFF = "122 encoder tensors from byol epoch 4, fingerprint 3f2a90c1d2e3"


@pytest.fixture
def tracker(mlflow_uri: str) -> Tracker:
    return Tracker(mlflow_uri)


def test_names_are_read_back_as_they_were_written() -> None:
    tags = {str(tag): f"value of {tag}" for tag in Tag}
    assert from_mlflow({**to_mlflow(tags), "mlflow.user": "me"}) == tags
    assert all(name not in set(Tag) for name in RENAMED)


def test_an_old_name_gives_way_to_the_new_one() -> None:
    assert current_names({"hand_off": "old", "seed": "0"}) == {
        "weight_transfer": "old",
        "seed": "0",
    }
    assert current_names({"weight_transfer": "new", "hand_off": "old"}) == {
        "weight_transfer": "new"
    }


def test_tag_names_stand_in_one_file() -> None:
    """No other file spells `orchestrator.<tag>`, or indexes tags by a text of its own; but for what
    MLflow's pages ask for, in rooms below, whose names are of tags that there are."""
    tags = r"tags(\.get\(|\[)['\"]"
    spelled = re.compile(rf"['\"`]orchestrator\.({'|'.join(Tag)})['\"`]|{tags}")
    below = {ROOT / "orchestrator" / file for file in ("pages/view.py", "rest/mlflow_pages.py")}
    files = [path for path in (ROOT / "orchestrator").rglob("*.py") if path.name != "tags.py"]
    assert len(files) > 50
    assert {path for path in files if spelled.search(path.read_text("utf-8"))} == below
    for path in below:
        named = re.findall(r"['\"`]orchestrator\.(\w+)['\"`]", path.read_text("utf-8"))
        assert named and set(named) <= set(Tag)


def test_a_submission_that_was_tagged_by_an_earlier_version_is_read(tracker: Tracker) -> None:
    client, run = tracker.connection.api.client, planned("A")
    experiment = tracker.writer.experiment("old")
    plan = {"format": FORMAT, "study": "old", "runs": [dict(vars(run))]}
    tags = {"kind": "submission", "comparison": "0123", "finished": "4567", "job": "gone"}
    old = {f"orchestrator.{name}": value for name, value in tags.items()}
    parent = client.create_run(experiment, tags=old).info.run_id
    client.log_text(parent, json.dumps(plan), "plan.json")
    facts = {"numerics": "bfloat16, channels last"}
    tags = {
        "kind": "run", "run_key": run.key, "label": "A", "seed": "0", "hand_off": HAND_OFF,
        "maps": "plots/", "opened": "true", "progress": json.dumps({"epoch": 3, "facts": facts}),
    }  # fmt: skip
    old = {f"orchestrator.{name}": value for name, value in tags.items()}
    client.create_run(experiment, tags={**old, "mlflow.parentRunId": parent})
    newest = tracker.reader.newest_submissions("here")["old"]["here"]
    assert newest.tags["comparison_digest"] == "0123"
    (item,) = load(tracker.reader, newest).runs
    assert item.state == State.RUNNING and item.tracked is not None
    assert item.fact(Tag.WEIGHT_TRANSFER) == HAND_OFF
    assert item.fact(Tag.PRECISION) == "bfloat16, channels last"  # from its progress
    assert item.fact(Tag.FIGURES) == "plots/" and item.tracked.tags["described"] == "true"


def test_a_result_and_tags_of_an_earlier_version_go_on_under_the_names_of_today(
    tracker: Tracker, tasks: Tasks
) -> None:
    task = tasks.make(epochs=1)
    run, store = replace(planned("A"), key=task.key), tasks.store
    train(task, ALONE, lambda figures: None)
    path = store.run(run.key).path / "done.json"
    result = read_json(path)
    assert result is not None
    del result["facts"]["weight_transfer"], result["facts"]["precision"]
    result["facts"] |= {"hand_off": HAND_OFF, "numerics": "float32"}
    write_json(path, result)
    submission = tracker.reader.run(
        tracker.writer.create_run(tracker.writer.experiment("study"), "study", {})
    )
    # as an earlier version left it: opened, not closed, its figures sent
    tags = {"label": "A", "seed": "0", "kind": "run", "run_key": run.key, "opened": "true"}
    tags["maps"] = "plots/"
    run_id = tracker.writer.create_run(submission.experiment_id, run.name, tags, submission.run_id)
    sync = MlflowSync(tracker, store, submission, {})
    sync.end(run, RunEnd(State.FINISHED))
    sync.finish()
    (tracked,) = tracker.reader.children(submission)
    assert (tracked.run_id, tracked.status) == (run_id, "FINISHED")
    written = tracker.connection.api.client.get_run(run_id).data.tags
    assert written["orchestrator.weight_transfer"] == HAND_OFF
    assert written["orchestrator.precision"] == "float32"
    # neither described nor drawn once more
    assert not {"orchestrator.described", "orchestrator.figures"} & written.keys()
    assert store.run(run.key).origin() is None


@pytest.mark.parametrize("kind", Kind)
def test_kinds_and_states_are_written_as_their_names(tracker: Tracker, kind: Kind) -> None:
    experiment = tracker.writer.experiment("kinds")
    run_id = tracker.writer.create_run(experiment, "a", {Tag.KIND: kind})
    tracker.writer.set_status(run_id, State.KILLED)
    tracked = tracker.reader.run(run_id)
    assert (tracked.tags, tracked.status) == ({"kind": kind.value}, "KILLED")
    (item,) = run_states([planned("A")], [child(planned("A"), tracked.status)])
    assert json.dumps(item.state) == '"KILLED"'
