"""What a worker checks before it trains."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution import launcher
from orchestrator.execution.task import Task
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from trainables.engine.checkpoints import Unrecoverable

TASK = Task("f" * 20, 1, "a", "classify", {}, 0, "", "", None, None)


def test_a_host_that_does_not_see_the_home_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_SIGHT_SECONDS", 0.0)
    home = Home(tmp_path / "home").create()
    Store(home.store).run(TASK.key).begin_attempt()
    launcher.check_home(replace(TASK, store=str(home.store)))
    with pytest.raises(Unrecoverable, match=f"does not see the home {tmp_path}/away of the driver"):
        launcher.check_home(replace(TASK, store=str(tmp_path / "away" / "store")))
