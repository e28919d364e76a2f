"""What a worker checks before it trains."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution import launcher
from orchestrator.execution.task import Task
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from trainables.engine.checkpoints import Unrecoverable

HANGS = """
import sys, time
from pathlib import Path
from orchestrator.execution.launcher import ended_when_stalled
from orchestrator.storage.run_records import Store
run = Store(Path(sys.argv[1])).run("f" * 20)
writer = run.writer(run.begin_attempt())
with ended_when_stalled(run, float(sys.argv[2]), lambda reason: print(reason, flush=True)):
    for epoch in range(6):
        writer.report({"history": [], "facts": {}, "done": epoch})
        time.sleep(0.5)
    print("last report", flush=True)
    time.sleep(float(sys.argv[3]))
print("left", flush=True)
time.sleep(3)
"""
TASK = Task(
    key="f" * 20, attempt=1, label="a", trainable="classify", config={}, seed=0,
    vary=("init", "order"), table="", store="", parent=None, parent_label=None,
)  # fmt: skip


def test_a_host_that_does_not_see_the_home_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_SIGHT_SECONDS", 0.0)
    home = Home(tmp_path / "home").create()
    Store(home.store).run(TASK.key).begin_attempt()
    launcher.check_home(replace(TASK, store=str(home.store)))
    with pytest.raises(Unrecoverable, match=f"does not see the home {tmp_path}/away of the driver"):
        launcher.check_home(replace(TASK, store=str(tmp_path / "away" / "store")))


@pytest.mark.parametrize(
    ("limit", "silence", "said"),
    [
        (2, 600, ["last report", "no progress for 0.0333333 minutes"]),
        (30, 0.5, ["last report", "left"]),
    ],
)
def test_a_process_that_makes_no_progress_ends_itself(tmp_path, limit, silence, said) -> None:
    """Six reports in three seconds are progress, the silence after them is not."""
    command = [sys.executable, "-c", HANGS, str(tmp_path), str(limit), str(silence)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.stdout.splitlines() == said, ended.stderr
    assert ended.returncode == (1 if silence > limit else 0)
