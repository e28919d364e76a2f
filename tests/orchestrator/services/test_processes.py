"""Processes are found again by their mark, also when what started them has died, and ended."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.services.processes import alive, end, identity, marked, spawn, tree

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def family(folder: Path, mark: str) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """A process and its child."""
    log = folder / "family.log"
    parent = spawn([sys.executable, "-c", FAMILY], log, mark, {})
    deadline = time.monotonic() + 30
    while not log.read_text().strip() and time.monotonic() < deadline:
        time.sleep(0.05)
    return parent, psutil.Process(int(log.read_text()))


def test_an_orphan_is_found_by_its_mark_and_ended(tmp_path: Path) -> None:
    mark = f"test {os.getpid()}"
    parent, child = family(tmp_path, mark)
    assert {p.pid for p in marked(mark)} == {parent.pid, child.pid}
    assert {p.pid for p in tree(parent.pid)} == {parent.pid, child.pid}
    parent.kill()
    parent.wait()
    assert [p.pid for p in marked(mark)] == [child.pid]
    assert tree(parent.pid) == []
    end(marked(mark))
    assert marked(mark) == [] and not child.is_running()


def test_ending_a_process_ends_its_children(tmp_path: Path) -> None:
    parent, child = family(tmp_path, "family")
    end([psutil.Process(parent.pid)])
    parent.wait()
    assert not child.is_running()


def test_a_process_that_ignores_the_request_is_made_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.services.processes._GRACE_SECONDS", 0.5)
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    code = f"{ignore}; print(1, flush=True); time.sleep(600)"
    process = spawn([sys.executable, "-c", code], tmp_path / "log", "stubborn", {})
    while not (tmp_path / "log").read_text():
        time.sleep(0.05)
    end([psutil.Process(process.pid)])
    assert not psutil.pid_exists(process.pid)
    process.wait()


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    me = identity(psutil.Process())
    assert alive(me) == psutil.Process()
    assert alive(me | {"created": me["created"] - 60}) is None
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        known = identity(psutil.Process(process.pid))
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)
        assert (
            alive(known) is None
        )  # it has ended, only its parent has not asked for its exit status


def test_settings_of_ray_and_mlflow_stay_with_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere")
    monkeypatch.setenv("OWN", "kept")
    code = "import os; print(sorted(k for k in os.environ if k[:3] in ('RAY', 'MLF', 'OWN')))"
    spawn([sys.executable, "-c", code], tmp_path / "log", "m", {"RAY_X": "1"}).wait()
    assert (tmp_path / "log").read_text().strip() == str(["OWN", "RAY_X"])


def test_a_process_that_lives_on_is_dropped_without_a_warning(tmp_path: Path) -> None:
    """A notebook that starts services would be warned of each."""
    family(tmp_path, "dropped")  # warnings are errors here
    gc.collect()
    (parent, *_) = marked("dropped")
    end([parent])
