"""Placement groups that Ray would keep for ever are given back, and no others."""

from types import SimpleNamespace

import pytest

from orchestrator.execution import resources
from orchestrator.execution.resources import OrphanedGroups

GROUPS = {  # name → creator's job, state, detached
    "pending": ("ours", "PENDING", False),
    "used": ("ours", "CREATED", False),
    "gone": ("ours", "REMOVED", False),
    "others": ("theirs", "CREATED", False),
    "left": ("ended", "CREATED", False),
    "kept": ("ended", "CREATED", True),
    "unknown": ("of no job", "CREATED", False),
}


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
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


def test_what_an_ended_job_left_is_removed_and_nothing_of_others(removed: list[str]):
    OrphanedGroups().remove()
    assert removed == ["left"]


def test_what_waits_longer_than_a_start_may_take_is_removed(
    removed: list[str], monkeypatch: pytest.MonkeyPatch
):
    orphans = OrphanedGroups()
    orphans.remove()
    removed.clear()
    later = resources.time.monotonic() + resources._ORPHAN_SECONDS + 1
    monkeypatch.setattr(resources.time, "monotonic", lambda: later)
    orphans.remove()
    assert removed == ["pending", "left"]
