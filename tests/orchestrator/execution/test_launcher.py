"""Why an attempt ended: what the Run did itself, who died and of what, or who lost whom."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.exceptions

from orchestrator.execution import resources
from orchestrator.execution.failures import explain
from orchestrator.execution.resources import Orphans
from orchestrator.execution.task import Task
from orchestrator.storage.run_records import StaleWriter, Store
from trainables.engine.checkpoints import Unrecoverable

KEY = "0123456789abcdef0123"


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(KEY, 1, "late", "classify", {}, 0, "", str(tmp_path), None, None)


def died(message: str = "") -> ray.exceptions.ActorDiedError:
    error = ray.exceptions.ActorDiedError()
    error.error_msg = message
    error.args = (message,)
    return error


def test_a_fault_of_the_run_counts_before_the_death_of_another_rank(task):
    outcome = explain({0: died(), 1: Unrecoverable("the loss is not finite")}, task, 0)
    assert (outcome.state, outcome.reason) == ("failed", "the loss is not finite")


def test_a_rank_that_lost_a_dead_one_is_not_the_cause(task):
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    assert explain({0: lost, 1: died()}, task, 0).state == "killed"
    assert "worker 1" in explain({0: lost, 1: died()}, task, 0).reason
    alone = explain({0: lost}, task, 0)
    assert alone.state == "killed" and "lost contact" in alone.reason


def test_an_error_of_the_code_is_a_failure_with_its_name(task):
    outcome = explain({1: KeyError("missing")}, task, 0)
    assert (outcome.state, outcome.reason) == ("failed", "KeyError on rank 1: 'missing'")


def test_an_overtaken_writer_is_neither_failed_nor_killed(task):
    assert explain({0: StaleWriter("attempt 2 has taken over")}, task, 0).state == "superseded"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("killed because the node was running low on memory", "out of memory"),
        ("The actor died because its node has died.", "lost with its node"),
        ("", "was killed from outside (SIGKILL), or crashed without a word"),
    ],
)
def test_a_death_is_told_with_what_is_known_of_it(task, message, reason):
    outcome = explain({0: died(message)}, task, 0)
    assert outcome.state == "killed" and reason in outcome.reason


def test_a_crash_is_told_with_its_signal_from_the_log(task):
    log = Store(Path(task.store)).run(KEY).log_file(1, 0)
    log.write_text("INFO epoch 1\nFatal Python error: Segmentation fault\n\nThread 0x1:\n")
    assert explain({0: died()}, task, 0).reason == (
        "worker 0 crashed: Segmentation fault (see its log)"
    )


def test_the_kernel_is_named_when_it_killed_something_on_this_machine(task, monkeypatch):
    store = Store(Path(task.store))
    store.run(KEY).begin_attempt()
    monkeypatch.setattr("orchestrator.execution.failures.kernel_kills", lambda: 8)
    store.run(KEY).writer(1).report({"host": "elsewhere"})
    assert "from outside" in explain({0: died()}, task, 7).reason
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    assert "by the kernel: out of memory" in explain({0: died()}, task, 7).reason


GROUPS = {  # name → creator's job, state, detached
    "pending": ("ours", "PENDING", False),
    "used": ("ours", "CREATED", False),
    "gone": ("ours", "REMOVED", False),
    "others": ("theirs", "CREATED", False),
    "left": ("ended", "CREATED", False),
    "kept": ("ended", "CREATED", True),
    "unknown": ("nobody's", "CREATED", False),
}


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the groups that were removed from a cluster with GROUPS."""
    names = {name.encode().hex(): name for name in GROUPS}
    groups = [
        SimpleNamespace(placement_group_id=i, creator_job_id=job, state=state, is_detached=detached)
        for i, (job, state, detached) in zip(names, GROUPS.values(), strict=True)
    ]
    actors = [SimpleNamespace(placement_group_id=b"used".hex(), state="ALIVE")]
    states = {"ours": "RUNNING", "theirs": "RUNNING", "ended": "STOPPED"}
    jobs = [SimpleNamespace(job_id=job, status=status) for job, status in states.items()]
    found: list[str] = []
    context = SimpleNamespace(get_job_id=lambda: "ours")
    monkeypatch.setattr(resources.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(resources, "list_actors", lambda **_: actors)
    monkeypatch.setattr(resources, "list_placement_groups", lambda **_: groups)
    monkeypatch.setattr(resources, "list_jobs", lambda **_: jobs)
    monkeypatch.setattr(resources.ray, "PlacementGroupID", lambda raw: raw.decode())
    monkeypatch.setattr(resources, "PlacementGroup", lambda name: name)
    monkeypatch.setattr(resources, "remove_placement_group", found.append)
    return found


def test_what_an_ended_job_left_is_given_back_and_nothing_of_others(given_back: list[str]):
    Orphans().give_back()
    assert given_back == ["left"]


def test_what_waits_longer_than_a_start_may_take_is_given_back(
    given_back: list[str], monkeypatch: pytest.MonkeyPatch
):
    orphans = Orphans()
    orphans.give_back()
    given_back.clear()
    later = resources.time.monotonic() + resources._ORPHAN_SECONDS + 1
    monkeypatch.setattr(resources.time, "monotonic", lambda: later)
    orphans.give_back()
    assert given_back == ["pending", "left"]
